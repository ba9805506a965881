"""Evaluating on other sets, several runs at once, and stored tables without any model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.command import guarded
from calib_ebm.evaluate import LISTS, evaluate
from calib_ebm.report.files import read_predictions, read_run
from calib_ebm.report.stress import StressRow, read_stress
from calib_ebm.settings import quoted

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def run(undisturbed: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed.last_path, tmp_path / "run"))


@pytest.fixture
def measure(settings: Settings) -> Callable[..., None]:
    """`evaluate` with what a person types."""

    def build(*words: str) -> None:
        evaluate(settings(*(quoted(word, LISTS) for word in words), of="evaluate"))

    return build


@pytest.fixture
def refused(measure: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def check(*words: str) -> str:
        assert guarded(lambda: measure(*words)) == 2
        return " ".join(capsys.readouterr().err.split())

    return check


def metrics(folder: Path) -> dict[str, float]:
    loaded: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return loaded


def one(rows: tuple[StressRow, ...], name: str, metric: str) -> StressRow:
    (row,) = (row for row in rows if (row.set, row.metric) == (name, metric))
    return row


def test_a_stored_table_gives_the_run_s_numbers_without_its_model(
    run: Path, measure: Callable[..., None]
) -> None:
    shutil.rmtree(run / "model")
    before = metrics(run)
    measure(f"table={run}")
    after = metrics(run / "evaluations" / "table-temperature")
    needs_more = {name for name in before if name.startswith("noise/")}
    assert {*before} - needs_more == {*after}
    assert {name: before[name] for name in after} == pytest.approx(after, abs=1e-9, nan_ok=True)
    assert any(name.startswith("energy/gap") for name in after)
    page = (run / "evaluations" / "table-temperature" / "report.html").read_text()
    assert "without the model" in page


def test_one_command_measures_all_sets_against_the_clean_one(
    run: Path, terminal: Any, tmp_path: Path
) -> None:
    labels = read_run(run).run.labels
    named = "".join(f"the plot was good {i},{labels[i % 2]}\n" for i in range(12))
    (tmp_path / "other.csv").write_text("sentence,label\n" + named)
    (tmp_path / "bare.csv").write_text("sentence\n" + "a bad soup\n" * 5)
    done = terminal.type(
        "evaluate",
        f"run={run}",
        f"data={tmp_path / 'other.csv'},{tmp_path / 'bare.csv'}",
        "corrupt=tokens:0.5,typos:0.5,truncate:0.5",
        f"ood={tmp_path / 'b*e.csv'}".replace("b*e", "other"),
        f"out={tmp_path / 'out'}",
    )
    assert (done.code, "would be called other" in " ".join(done.err.split())) == (2, True)
    (tmp_path / "far.csv").write_text("sentence\n" + "zebra quantum invoice\n" * 7)
    words = (f"run={run}", f"data={tmp_path / 'other.csv'},{tmp_path / 'bare.csv'}")
    corrupt = "corrupt=tokens:0.5,typos:0.5,truncate:0.5"
    done = terminal.type("evaluate", *words, corrupt, f"ood={tmp_path / 'f*r.csv'}")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines()[:-1])) <= 79 and "minus clean" in done.out
    home = done.last_path
    assert home == run / "evaluations"
    rows = read_stress(home)
    sets = dict.fromkeys(row.set for row in rows)
    assert [*sets] == ["clean", "other", "bare", "tokens-0.5", "typos-0.5", "truncate-0.5", "far"]
    for row in rows:
        folder = home / row.folder
        assert row.value == metrics(folder)[row.metric]
        assert (folder / "report.html").is_file()
        if row.difference is not None:
            clean = one(rows, "clean", row.metric)
            assert row.difference == pytest.approx(row.value - clean.value, abs=1e-9)
            assert row.low is not None and row.difference_low is not None
            assert row.paired == (row.kind in ("tokens", "typos", "truncate"))
    assert one(rows, "typos-0.5", "test_calibrated/cal/ece").rate == 0.5
    assert not [row for row in rows if row.set == "bare" and "ece" in row.metric]  # no labels
    apart = {row.metric for row in rows if row.kind == "ood"}
    assert apart >= {"ood/auroc/energy", "ood/fpr95/margin"}
    clean, typos = (read_predictions(home / f"{n}-temperature") for n in ("test", "typos-0.5"))
    assert clean.ids == typos.ids and (clean.of("fit").logits_NC == typos.of("fit").logits_NC).all()
    assert (clean.of("test").logits_NC != typos.of("test").logits_NC).any()
    page = (home / "bare-temperature" / "report.html").read_text()
    assert "These texts have no labels" in page
    assert "Against the clean set" in (home / "far-temperature" / "report.html").read_text()
    # Each set's own table gives its figures again.
    again = terminal.type("evaluate", f"table={home / 'typos-0.5-temperature'}")
    repeated = metrics(again.last_path)
    stored = metrics(home / "typos-0.5-temperature")
    assert {k: stored[k] for k in repeated} == pytest.approx(repeated, abs=1e-9, nan_ok=True)


def test_an_ensemble_is_of_probabilities_and_needs_no_model_for_what_is_stored(
    run: Path, measure: Callable[..., None], refused: Callable[..., str], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run2"))
    shutil.rmtree(other / "model")
    measure(f"run={run},{other}", f"out={tmp_path / 'both'}")
    alone, both = read_predictions(run), read_predictions(tmp_path / "both")
    assert both.ids == alone.ids
    assert both.probs_NC().numpy() == pytest.approx(alone.probs_NC().numpy(), abs=1e-9)
    measure(f"run={tmp_path / 'run*'}", f"out={tmp_path / 'found'}")  # the same two
    assert metrics(tmp_path / "found") == metrics(tmp_path / "both")
    assert "it has no model/" in refused(f"run={run},{other}", "mc_dropout=2")
    (other / "predictions.parquet").unlink()
    assert "predictions.parquet" in refused(f"run={run},{other}")
    assert "matches nothing" in refused(f"run={tmp_path / 'nothing*'}")


@pytest.mark.parametrize("change", ["ids", "labels", "task"])
def test_runs_that_do_not_belong_together_are_named(
    change: str, run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = Path(shutil.copytree(run, tmp_path / "other"))
    path = other / "predictions.parquet"
    table = pq.read_table(path)
    if change == "ids":
        ids = pa.array([f"{one}x" for one in table.column("id").to_pylist()])
        pq.write_table(table.set_column(0, "id", ids), path)
        said = "have predicted different texts"
    elif change == "labels":
        labels = pa.array([1 - one for one in table.column("label").to_pylist()])
        pq.write_table(table.set_column(2, "label", labels), path)
        said = "have different labels for"
    else:
        record = json.loads((other / "run.json").read_text()) | {"task": "cola"}
        (other / "run.json").write_text(json.dumps(record))
        said = "is a run of cola"
    found = refused(f"run={run},{other}")
    assert said in found and str(other) in found


def test_mc_dropout_is_seeded_and_says_so(run: Path, measure: Callable[..., None]) -> None:
    place = run / "evaluations" / "test-none-mc_dropout-3"
    measure(f"run={run}", "mc_dropout=3", "calibrator=none")
    first = read_predictions(place)
    measure(f"run={run}", "mc_dropout=3", "calibrator=none")
    assert (read_predictions(place).logits_NC == first.logits_NC).all()
    measure(f"run={run}", "mc_dropout=3", "calibrator=none", "seed=1")
    assert (read_predictions(place).logits_NC != first.logits_NC).any()
    assert any("mean of 3 passes" in note for note in read_run(place).run.notes)


def test_a_table_from_anywhere(
    measure: Callable[..., None], refused: Callable[..., str], tmp_path: Path
) -> None:
    rows = [f"k{i},{0.9 - i / 100},{0.1 + i / 100},{'no' if i % 3 else 'yes'}" for i in range(60)]
    path = tmp_path / "scored.csv"
    path.write_text("key,p_no,p_yes,truth\n" + "\n".join(rows) + "\n")
    words = (f"table={path}", "probs=p_no,p_yes", "label=truth", "id=key")
    measure(*words, f"out={tmp_path / 'halves'}")
    halves = read_predictions(tmp_path / "halves")
    assert (halves.splits.count("fit"), halves.splits.count("test")) == (30, 30)
    measure(*words, f"out={tmp_path / 'folds'}", "folds=5")
    folds = read_run(tmp_path / "folds")
    assert folds.predictions.splits.count("test") == 60 and folds.run.labels == ("no", "yes")
    page = (tmp_path / "folds" / "report.html").read_text()
    assert "each of 5 folds after a calibrator fitted on the other folds" in page
    measure(*words, f"out={tmp_path / 'all'}", "calibrator=none")
    assert read_predictions(tmp_path / "all").splits.count("test") == 60
    for folder, names in (("halves", 30), ("folds", 60)):  # a table of ours is one from anywhere
        measure(f"table={tmp_path / folder}", f"out={tmp_path / 'again'}")
        assert metrics(tmp_path / "again") == pytest.approx(metrics(tmp_path / folder)), names
    assert "Neither run nor table" in refused()
    assert "Both run and table" in refused(f"table={path}", "run=x")
    assert "corrupt given with table=" in refused(f"table={path}", "corrupt=typos:0.1")
    assert "says itself what is fitted on" in refused(
        f"table={tmp_path / 'halves' / 'predictions.parquet'}", "folds=3"
    )
    assert "is not there" in refused("table=nothing.csv")


def test_a_folder_of_tables(measure: Callable[..., None], tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("a", "b"):
        rows = "".join(f"{0.6 + i / 100},{0.4 - i / 100},{i % 2}\n" for i in range(20))
        (tables / f"{name}.csv").write_text("prob_0,prob_1,label\n" + rows)
    measure(f"table={tables}", "calibrator=none", f"out={tmp_path / 'out'}")
    assert metrics(tmp_path / "out" / "a") == metrics(tmp_path / "out" / "b")


def test_a_crossfitted_run(settings: Settings, measure: Callable[..., None]) -> None:
    from calib_ebm.train import train

    train(settings("task.split=crossfit", "task.folds=3", "energy=none"))
    folder = Path(settings()["run_dir"])
    run = read_run(folder)
    assert run.predictions.splits.count("test") == 61 and run.predictions.folds_N is not None
    assert "each of 3 folds after a calibrator fitted" in (folder / "report.html").read_text()
    measure(f"run={folder}")
    again = metrics(folder / "evaluations" / "test-temperature")
    before = {k: v for k, v in metrics(folder).items() if k.startswith("test")}
    assert {k: again[k] for k in before} == pytest.approx(before, abs=1e-5)
    measure(f"run={folder}", "corrupt=truncate:0.5")
    table = read_predictions(folder / "evaluations" / "truncate-0.5-temperature")
    assert table.folds_N is None and {*table.splits} == {"fit", "test"}


def test_a_run_calibrated_on_a_part_of_train(settings: Settings) -> None:
    from calib_ebm.train import train

    train(settings("task.split=train_holdout", "task.holdout_fraction=0.3", "energy=none"))
    table = read_predictions(Path(settings()["run_dir"]))
    assert table.splits.count("test") == 61
    assert all(one.startswith("train-") for one in table.of("fit").ids) and table.of("fit").ids
