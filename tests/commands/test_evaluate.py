"""Measuring a finished run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from calib_ebm.command import guarded
from calib_ebm.evaluate import evaluate
from calib_ebm.report.files import read_predictions, read_run
from calib_ebm.tokens.collate import pad_batch

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def run(undisturbed: Any, tmp_path: Path) -> Path:
    """A finished run of one's own, to be written into and to be spoilt."""
    return Path(shutil.copytree(undisturbed.last_path, tmp_path / "run"))


@pytest.fixture
def refused(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Evaluate what must be refused; what was said, in one line."""

    def check(*words: str) -> str:
        assert guarded(lambda: evaluate(settings(*words, of="evaluate"))) == 2
        said = capsys.readouterr().err
        assert "\n  allowed: " in said and "\n  to do: " in said
        return " ".join(said.split())

    return check


def metrics(folder: Path) -> dict[str, float]:
    loaded: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return loaded


def of_test(folder: Path) -> dict[str, float]:
    """What is told of the test half."""
    return {name: value for name, value in metrics(folder).items() if name.startswith("test")}


def test_on_its_own_test_half_a_run_gets_the_numbers_that_it_had(
    run: Path, terminal: Any, undisturbed: Any
) -> None:
    done = terminal.type("evaluate", f"run={run}")
    assert (done.code, done.err) == (0, "")
    folder = done.last_path
    assert folder == run / "evaluations" / "test-temperature"
    ours, theirs = of_test(folder), of_test(undisturbed.last_path)
    assert ours.keys() == theirs.keys() and "test_calibrated/cal/true" in ours
    assert ours == pytest.approx(theirs, abs=1e-6)
    record, before = read_run(folder).run, read_run(run).run
    assert record.status == "complete" and {*record.notes} <= {*before.notes}
    assert record.temperature == pytest.approx(before.temperature, abs=1e-4)
    assert (folder / "report.html").is_file()


def test_without_a_calibrator_calibration_changes_nothing(run: Path, settings: Settings) -> None:
    evaluate(settings(f"run={run}", "calibrator=none", of="evaluate"))
    ours = of_test(run / "evaluations" / "test-none")
    for name, value in ours.items():
        if name.startswith("test_calibrated/"):
            assert value == ours[name.replace("test_calibrated", "test")], name
    theirs = of_test(run)  # the control: temperature does change something
    assert theirs["test_calibrated/nll"] != theirs["test/nll"]


@pytest.mark.parametrize("name", ["vector", "dirichlet", "isotonic", "scaling_binning"])
def test_another_calibrator_leaves_the_model_as_it_is(
    name: str, run: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in sorted((run / "model").rglob("*.*"))}
    evaluate(settings(f"run={run}", f"calibrator={name}", of="evaluate"))
    assert {path: path.read_bytes() for path in sorted((run / "model").rglob("*.*"))} == before
    folder = run / "evaluations" / f"test-{name}"
    fitted = read_run(folder).run.calibrator
    assert fitted.name == name and fitted.words in (folder / "report.html").read_text()
    assert fitted.words.split(" (")[0] in " ".join(capsys.readouterr().out.split())
    ours, theirs = of_test(folder), of_test(run)
    assert "calibrator/temperature" not in metrics(folder)
    for one, value in theirs.items():  # before calibration they are the same model
        if one.startswith("test/"):
            assert ours[one] == pytest.approx(value, abs=1e-6), one
    assert ours["test_calibrated/nll"] != pytest.approx(theirs["test_calibrated/nll"], abs=1e-9)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_other_texts_are_reported_and_the_run_s_fit_half_calibrates(
    ending: str, run: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = yaml.safe_load((run / "run.json").read_text())["labels"]
    rows = [(f"some words {i}", labels[i % 2]) for i in range(9)] + [("", labels[0])]
    file = tmp_path / f"other.{ending}"
    if ending == "csv":
        file.write_text("review,stars\n" + "".join(f"{t},{y}\n" for t, y in rows))
    else:
        file.write_text("".join(json.dumps({"review": t, "stars": y}) + "\n" for t, y in rows))
    words = (f"run={run}", f"data={file}", "text=review", "label=stars", f"out={tmp_path / 'out'}")
    evaluate(settings(*words, of="evaluate"))
    said = " ".join(capsys.readouterr().out.split())
    assert "have an empty text and were dropped" in said and "9 to report on" in said
    table, before = read_predictions(tmp_path / "out"), read_predictions(run)
    assert table.splits.count("test") == 9
    assert table.splits.count("fit") == before.splits.count("fit")
    assert "test/cal/true" not in metrics(tmp_path / "out")  # nobody knows the truth of these
    assert read_run(tmp_path / "out").run.temperature == pytest.approx(
        read_run(run).run.temperature, abs=1e-4
    )


def test_an_evaluation_replaces_the_one_before_and_nothing_else(
    run: Path, settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    evaluate(settings(f"run={run}", f"out={out}", of="evaluate"))
    (out / "mine.txt").write_text("keep")
    other = tmp_path / "other.csv"
    other.write_text("sentence,label\n" + "some words,0\nmore words,1\n" * 2)
    evaluate(settings(f"run={run}", f"out={out}", f"data={other}", of="evaluate"))
    assert (out / "mine.txt").read_text() == "keep"
    assert not (out / "truth.parquet").exists()  # of the first only
    for place in (run, run / "model"):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        assert "which no evaluation wrote" in refused(f"run={run}", f"out={place}")
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("", "there is no such folder"),
        ("config.yaml", "it has no config.yaml"),
        ("model/calib_ebm.json", "it has no model/calib_ebm.json"),
        ("model/model.safetensors", "No encoder could be loaded"),
    ],
)
def test_what_is_no_finished_run(
    missing: str, said: str, run: Path, refused: Callable[..., str]
) -> None:
    if missing:
        (run / missing).unlink()
    else:
        shutil.rmtree(run)
    assert said in refused(f"run={run}")


def test_a_stranger_s_settings_are_data_and_nothing_is_executed(
    run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    done = tmp_path / "was_executed"
    command = f"open({str(done)!r}, 'w').close()"
    for text in (
        f"task: !!python/object/apply:builtins.exec [{json.dumps(command)}]\n",
        f"task:\n  _target_: builtins.exec\n  _args_: [{json.dumps(command)}]\nseed: 1\n",
        "task: [\n",
        "just words\n",
        "task: {name: csv, source: csv, split: hash_halves}\nseed: 1\n",
        "task: {name: x, source: pickle, split: hash_halves}\nseed: 1\n",
        "task: {name: x, source: csv, split: hash_halves}\nseed: '1'\n",
    ):
        (run / "config.yaml").write_text(text)
        refused(f"run={run}")
    assert not done.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model/calib_ebm.json", "{"),
        ("model/calib_ebm.json", '{"energy": "scalar"}'),
        (
            "model/calib_ebm.json",
            '{"energy":"x","temperature":1,"labels":["a","b"],"max_length":9}',
        ),
        ("model/config.json", "{"),
        ("model/tokenizer.json", "{"),
    ],
)
def test_a_stranger_s_model_that_is_broken_is_refused(
    name: str, text: str, run: Path, refused: Callable[..., str]
) -> None:
    (run / name).write_text(text)
    # What is broken is named, and it is the model and not, say, the path.
    assert f"{run}/model" in refused(f"run={run}").split("allowed:")[0].replace("' ", "'")


def test_the_data_of_a_run_may_have_moved_or_changed(
    settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    from calib_ebm.train import train

    rows = [f"words of text {i},{('good', 'bad')[i % 2]}\n" for i in range(40)]
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "mine.csv").write_text("text,label\n" + "".join(rows))
    small = ("encoder.name_or_path=small", "task.max_length=16", "energy=none")
    train(settings("task=csv", f"task.train={old / 'mine.csv'}", *small))
    run = tmp_path / "run"
    old.rename(new)
    assert "Say where they are with data_dir=" in refused(f"run={run}")
    words = (f"run={run}", f"data_dir={new}", f"out={tmp_path / 'out'}")
    evaluate(settings(*words, of="evaluate"))
    assert of_test(tmp_path / "out") == pytest.approx(of_test(run), abs=1e-6)
    assert not any("have changed" in note for note in read_run(tmp_path / "out").run.notes)
    (new / "mine.csv").write_text("text,label\n" + "".join(rows[1:]))
    evaluate(settings(*words, of="evaluate"))
    assert any("have changed" in note for note in read_run(tmp_path / "out").run.notes)
    (new / "mine.csv").write_text("text,label\n" + "".join(rows).replace("bad", "awful"))
    assert "The task's classes are now" in refused(*words)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("device=cuda:7", "device=cuda:7 is not to be had: this machine has"),
        ("threads=0", "threads is 0. allowed: a whole number from 1"),
        ("tokens_per_pass=0", "tokens_per_pass is 0. allowed: a whole number from 1"),
    ],
)
def test_what_it_shall_compute_on_is_checked(
    run: Path, refused: Callable[..., str], word: str, said: str
) -> None:
    assert said in refused(f"run={run}", word)
    assert not (run / "evaluations").exists()


@pytest.mark.parametrize("word", ["device=cpu", "threads=1", "tokens_per_pass=100"])
def test_a_table_computes_on_nothing(run: Path, refused: Callable[..., str], word: str) -> None:
    said = refused(f"table={run}", word)
    assert f"{word.split('=')[0]} given with table=, which uses no model." in said


def test_smaller_passes_are_more_and_give_the_same(
    run: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: dict[str, int] = {}
    threads: list[int] = []
    monkeypatch.setattr("calib_ebm.learn.devices.torch.set_num_threads", threads.append)
    for name, words in {"few": (), "many": ("tokens_per_pass=64", "threads=1")}.items():
        padded: list[int] = []

        def counted(tokenizer: Any, texts: Any, padded: list[int] = padded) -> Any:
            padded.append(len(texts))
            return pad_batch(tokenizer, texts)

        monkeypatch.setattr("calib_ebm.windows.pad_batch", counted)
        evaluate(settings(f"run={run}", f"out={run / name}", *words, of="evaluate"))
        passes[name] = len(padded)
    assert passes["many"] > passes["few"] > 0 and threads == [1]
    ours, again, before = (read_predictions(each) for each in (run / "many", run / "few", run))
    assert ours.ids == again.ids == before.ids
    np.testing.assert_allclose(ours.logits_NC, before.logits_NC, atol=1e-4)
    np.testing.assert_array_equal(again.logits_NC, before.logits_NC)
