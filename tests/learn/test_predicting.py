"""`predict`: every row once and in order, whatever stops it; and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pyarrow import parquet

from calib_ebm.calibration.calibrators import calibrator_from_state
from calib_ebm.classifier import EnergyClassifier
from calib_ebm.config_path import conf_dir
from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.learn import predict_work
from calib_ebm.learn.models import Ensemble
from calib_ebm.learn.predicting import predict
from calib_ebm.tokens.tokenizer import TextTokenizer, train_tokenizer

WORDS = ["the", "a", "film", "story", "is", "was", "fine", "dull", "good", "and", "it", "never"]
ROWS = 150
EMPTY = (5, 77, 149)
LABELS = ("bad", "good")
STATE = {"name": "temperature", "temperature": 1.7, "lower": 0.01, "upper": 100.0}


def text_of(row: int) -> str:
    rng = np.random.default_rng(row)
    return "" if row in EMPTY else " ".join(rng.choice(WORDS, rng.integers(1, 25)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A model folder of a seed, an energy and labels, made once each."""
    made: dict[tuple[Any, ...], Path] = {}

    def build(seed: int = 0, energy: str = "hidden", labels: tuple[str, ...] = LABELS) -> Path:
        key = (seed, energy, labels)
        if key not in made:
            tokenizer = TextTokenizer(train_tokenizer([" ".join(WORDS)] * 4, 300), 20)
            torch.manual_seed(seed)
            model = build_small_encoder(
                labels,
                len(tokenizer.hf),
                tokenizer.pad_id,
                20,
                layers=1,
                width=16,
                heads=2,
                dropout=0.1,
            )
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim == 2:
                        parameter *= 12
            network = EnergyNetwork(model, build_energy(energy, 16))
            calibrator = calibrator_from_state(STATE)
            folder = tmp_path_factory.mktemp("run") / "model"
            EnergyClassifier(network, tokenizer, labels, energy, calibrator).save_pretrained(folder)
            made[key] = folder
        return made[key]

    return build


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [{"id": f"r{row}", "text": text_of(row), "stars": row % 5} for row in range(ROWS)]


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
            )
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def new(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    return save(tmp_path / "new.csv", rows)


Predict = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, trained: Callable[..., Path], new: Path) -> Predict:
    """Predict within this process; the lines that were said are in `run.said`."""

    def once(*words: str) -> Path:
        names = [word.partition("=")[0] for word in words]
        shipped = {
            "run": str(trained()),
            "input": str(new),
            "output": str(tmp_path / "scored.csv"),
            "window": "16",
        }
        overrides = [f"{k}='{v}'" for k, v in shipped.items() if k not in names]
        overrides += [f"{k}='{v}'" for k, _, v in (word.partition("=") for word in words)]
        numbers = ("window", "processes", "overwrite", "tokens_per_pass", "threads")
        overrides = [o.replace("'", "") if o.startswith(numbers) else o for o in overrides]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            plain = OmegaConf.to_container(compose("predict", overrides=overrides), resolve=True)
        assert isinstance(plain, dict)
        once.said = []  # type: ignore[attr-defined]
        return predict(
            {str(key): value for key, value in plain.items()},
            once.said.append,  # type: ignore[attr-defined]
        )

    return once


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


class Killed(BaseException):
    """In place of a signal."""


def stop_after(windows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the scoring stopped in its nth window; the numbers of those that were scored."""
    score, scored = Ensemble.score, []

    def counted(self: Ensemble, examples: Any, seed: int) -> Any:
        if len(scored) == windows:
            raise Killed
        scored.append(seed)
        return score(self, examples, seed)

    monkeypatch.setattr(Ensemble, "score", counted)
    return scored


def stopped(windows: int, run: Predict, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Predict, and be stopped in the nth window."""
    with monkeypatch.context() as patch:
        stop_after(windows, patch)
        with pytest.raises(Killed):
            run(*words)


# ------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("into", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("of", ["csv", "tsv", "jsonl", "parquet"])
def test_each_row_has_the_scores_of_its_text(
    of: str,
    into: str,
    run: Predict,
    rows: list[dict[str, Any]],
    tmp_path: Path,
    trained: Callable[..., Path],
) -> None:
    source = save(tmp_path / f"in.{of}", rows)
    found = read(run(f"input={source}", f"output={tmp_path / f'out.{into}'}", "keep=id,stars"))
    assert list(found[0]) == [
        *("id", "stars", "predicted", "confidence", "prob_bad", "prob_good", "energy")
    ]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [int(row["stars"]) for row in found] == [row["stars"] for row in rows]
    one = EnergyClassifier.from_pretrained(trained())
    texts = [row["text"] for row in rows if row["text"]]
    probs_NC, energy_N = one.predict_proba(texts), one.energy(texts)
    scored = [row for number, row in enumerate(found) if number not in EMPTY]
    probs = [[float(row["prob_bad"]), float(row["prob_good"])] for row in scored]
    np.testing.assert_allclose(probs, probs_NC, atol=1e-5)
    np.testing.assert_allclose([float(row["energy"]) for row in scored], energy_N, atol=1e-3)
    assert [row["predicted"] for row in scored] == [LABELS[best] for best in probs_NC.argmax(1)]
    assert len({*map(str, probs)}) > 100  # the control: the texts differ
    for number in EMPTY:
        assert {found[number][name] for name in list(found[0])[2:]} <= {"", None}


def test_what_was_done_is_said_and_recorded(run: Predict, new: Path) -> None:
    output = run()
    said = "\n".join(run.said)  # type: ignore[attr-defined]
    assert "150 rows, texts in 'text'; kept: id" in said
    assert "note: 3 have an empty text (line 7, 79, 151)" in said
    assert "147 scored now" not in said and "150 scored now" in said
    record = json.loads(output.with_name("scored.csv.json").read_text())
    assert record["input"] == {"path": str(new), "rows": 150} and record["empty"] == 3
    cut = sum(len(text_of(row).split()) > 18 for row in range(ROWS))
    assert record["cut"] == cut > 0 and f"{cut} texts were longer" in said
    assert {path.name for path in output.parent.iterdir()} == {
        *("new.csv", "scored.csv", "scored.csv.json")
    }


def test_the_texts_are_copied_when_they_are_asked_for(
    run: Predict, rows: Any, tmp_path: Path
) -> None:
    found = read(run("keep=*"))
    assert [{name: row[name] for name in ("id", "text")} for row in found] == [
        {name: row[name] for name in ("id", "text")} for row in rows
    ]
    assert "text" not in read(run(f"output={tmp_path / 'b.csv'}"))[0]


def test_several_models_are_the_mean_of_their_calibrated_probabilities(
    run: Predict, trained: Callable[..., Path], rows: Any, tmp_path: Path
) -> None:
    both = [trained(0), trained(1)]
    found = read(run(f"run={both[0]},{both[1]}"))
    members = [EnergyClassifier.from_pretrained(folder) for folder in both]
    texts = [row["text"] or "x" for row in rows]
    probs = [member.predict_proba(texts) for member in members]
    energy_N = sum(member.energy(texts) for member in members) / 2
    for number in (0, 1, 2, 148):
        assert float(found[number]["prob_good"]) == pytest.approx(
            (probs[0][number, 1] + probs[1][number, 1]) / 2, abs=1e-5
        )
        assert float(found[number]["energy"]) == pytest.approx(energy_N[number], abs=1e-3)
    assert np.abs(probs[0] - probs[1]).max() > 0.05  # the control
    # Energies of two kinds have no mean.
    mixed = read(run(f"run={both[0]},{trained(1, 'scalar')}", f"output={tmp_path / 'b.csv'}"))
    assert "energy" not in mixed[0]


def test_a_window_and_passes_of_any_size_give_the_same(run: Predict, tmp_path: Path) -> None:
    first = read(run())
    for number, words in enumerate([("window=1000",), ("window=7",), ("tokens_per_pass=1",)]):
        other = read(run(*words, f"output={tmp_path / f'{number}.csv'}"))
        for name in ("confidence", "energy"):
            both = [[float(row[name] or 0) for row in rows] for rows in (first, other)]
            np.testing.assert_allclose(*both, atol=1e-3)


# ----------------------------------------------------------------------------- stopped, gone on


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("at", [0, 1, 6, 9])
def test_stopped_it_goes_on_and_the_file_is_the_undisturbed_one(
    at: int, ending: str, run: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / f"whole.{ending}", tmp_path / f"scored.{ending}"
    run(f"output={whole}")
    stopped(at, run, monkeypatch, f"output={output}")
    assert not output.exists()
    with monkeypatch.context() as patch:
        scored = stop_after(99, patch)
        run(f"output={output}")
    assert scored == list(range(at, 10))  # none of them twice
    assert output.read_bytes() == whole.read_bytes()
    said = "\n".join(run.said)  # type: ignore[attr-defined]
    assert (f"some {at * 16} texts are scored already" in said) == (at > 0)


@pytest.mark.parametrize("place", ["replacing", "write_json", "digest_of_file"])
def test_stopped_while_it_is_written_it_scores_nothing_again(
    place: str, run: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(f"output={tmp_path / 'whole.csv'}").read_bytes()

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(predict_work, place, killed)
        with pytest.raises(Killed):
            run()
    with monkeypatch.context() as patch:
        scored = stop_after(0, patch)
        assert run().read_bytes() == whole
    assert scored == [] and not (tmp_path / "scored.csv.parts").exists()


def test_a_finished_table_is_not_scored_again_unless_asked(
    run: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run()
    before = output.stat().st_mtime_ns
    scored = stop_after(99, monkeypatch)
    assert run() == output and scored == [] and output.stat().st_mtime_ns == before
    assert "is finished" in run.said[-1]  # type: ignore[attr-defined]
    run("overwrite=true")
    assert len(scored) == 10 and output.stat().st_mtime_ns != before


def test_a_damaged_part_is_made_again(
    run: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(f"output={tmp_path / 'whole.csv'}").read_bytes()
    stopped(5, run, monkeypatch)
    part = tmp_path / "scored.csv.parts" / "part-00000002.arrow"
    content = bytearray(part.read_bytes())
    content[-50] ^= 1
    part.write_bytes(content)
    scored = stop_after(99, monkeypatch)
    assert run().read_bytes() == whole
    assert scored == [2, 5, 6, 7, 8, 9]
    assert "1 windows had changed" in run.said[-1]  # type: ignore[attr-defined]


def test_a_corrected_row_costs_its_window_alone(
    run: Predict, rows: Any, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(5, run, monkeypatch)
    rows[20]["text"] = "another film"
    save(new, rows)
    with monkeypatch.context() as patch:
        scored = stop_after(99, patch)
        found = run().read_bytes()
    assert scored == [1, 5, 6, 7, 8, 9]
    assert found == run(f"output={tmp_path / 'whole.csv'}").read_bytes()


def test_another_model_or_setting_is_noticed_in_what_is_unfinished(
    run: Predict, trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped(5, run, monkeypatch)
    other = f"run={trained(1)}"
    with pytest.raises(InputError, match="did not finish has scored with another model"):
        run(other)
    with pytest.raises(InputError, match="with another window"):
        run("window=15")
    scored = stop_after(99, monkeypatch)
    found = run(other, "overwrite=true").read_bytes()
    assert len(scored) == 10  # nothing of the other model is taken
    assert found == run(other, f"output={tmp_path / 'whole.csv'}").read_bytes()


def test_another_model_or_text_is_noticed_in_what_is_finished(
    run: Predict, trained: Callable[..., Path], rows: Any, new: Path
) -> None:
    output = run()
    with pytest.raises(InputError, match="was made with another model"):
        run(f"run={trained(1)}")
    with pytest.raises(InputError, match="was made with another keep"):
        run("keep=stars")
    before, stat = new.read_text(), new.stat()
    rows[-2]["text"] += "s"
    rows[-3]["text"] = rows[-3]["text"][:-1]  # of the same size and, below, of the same date
    save(new, rows)
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert new.stat().st_size == stat.st_size
    with pytest.raises(InputError, match="was made with another content of the input"):
        run()
    new.write_text(before)
    run()
    output.write_text(output.read_text().replace("good", "bad", 1))
    with pytest.raises(InputError, match="changed after it was written") as refused:
        run()
    assert "overwrite=true" in refused.value.to_do


def test_an_input_that_changes_meanwhile_is_noticed(
    run: Predict, rows: Any, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Ensemble.score

    def and_change(self: Ensemble, examples: Any, seed: int) -> Any:
        if seed == 0:
            rows[140]["text"] += " it"
            save(new, rows)
        return score(self, examples, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "score", and_change)
        with pytest.raises(InputError, match="while it was scored"):
            run()
    assert len(read(run())) == ROWS


# --------------------------------------------------------------------------- several processes


@pytest.mark.parametrize("how", ["processes", "torchrun"])
def test_two_processes_write_the_file_of_one(
    how: str, run: Predict, trained: Callable[..., Path], new: Path, tmp_path: Path
) -> None:
    whole = run().read_bytes()
    output = tmp_path / "two.csv"
    words = [f"run={trained()}", f"input={new}", f"output={output}", "window=16", "threads=1"]
    command = [sys.executable, "-m", "calib_ebm.predict", *words]
    if how == "processes":
        done = [start([*command, "processes=2"], {})]
    else:  # what torchrun sets; the second one begins first
        done = [start(command, {"RANK": str(rank), "WORLD_SIZE": "2"}) for rank in (1, 0)]
    said = [process.communicate(timeout=3000) for process in done]
    assert [process.returncode for process in done] == [0] * len(done), said
    assert output.read_bytes() == whole
    assert "75 scored now" not in said[-1][0]
    assert sum(out.count("two.csv\n") for out, _ in said) == 1, "one process speaks"
    assert not (tmp_path / "two.csv.parts").exists()


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_both_processes_score_their_share_and_no_more(
    run: Predict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second process scores the odd windows; the first one, then alone, the others."""
    whole = run(f"output={tmp_path / 'whole.csv'}").read_bytes()
    stopped(0, run, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        scored = stop_after(99, patch)
        run()
    assert scored == [1, 3, 5, 7, 9] and not (tmp_path / "scored.csv").exists()
    scored = stop_after(99, monkeypatch)
    assert run().read_bytes() == whole and scored == [0, 2, 4, 6, 8]


def test_a_process_that_dies_ends_the_others_with_its_number(
    run: Predict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from calib_ebm.learn import processes

    def died(count: int) -> processes.Copies:
        copies = processes.Copies.__new__(processes.Copies)
        copies.count = count
        kill = "import os; os.kill(os.getpid(), 9)"
        copies.running = {1: subprocess.Popen([sys.executable, "-c", kill])}
        return copies

    with monkeypatch.context() as patch:
        patch.setattr("calib_ebm.learn.predicting.Copies", died)
        with pytest.raises(InputError, match="Process 1 of 0 to 1 was killed by signal 9"):
            run("processes=2")
    assert len(read(run())) == ROWS  # and one alone goes on


# ---------------------------------------------------------------------------- what is refused


def refusals(tmp: Path) -> list[tuple[tuple[str, ...], str]]:
    return [
        (("input=nowhere.csv",), "input=nowhere.csv is not there"),
        ((f"input={tmp}",), "is a folder"),
        ((f"output={tmp / 'scored'}",), "no ending"),
        ((f"output={tmp / 'scored.xlsx'}",), "the ending .xlsx"),
        ((f"output={tmp / 'new.csv'}",), "output and input are the same file"),
        (("run=nowhere",), "run=nowhere holds no model: there is no such folder"),
        ((f"run={tmp}",), "holds no model: it has no model/calib_ebm.json"),
        (("text=body",), "the column 'body' (text) is not there"),
        (("text_pair=body",), "the column 'body' (text_pair) is not there"),
        (("keep=id,body",), "keep=body is no column"),
        (("window=0",), "window is 0"),
        (("processes=0",), "processes is 0"),
        (("precision=half",), "precision is 'half'"),
        (("device=cuda:9",), "device=cuda:9 is not to be had: this machine has"),
        (("device=tpu",), "device=tpu is not to be had"),
    ]


@pytest.mark.parametrize("case", range(15))
def test_what_cannot_be_is_said_before_anything_is_written(
    case: int, run: Predict, new: Path, tmp_path: Path
) -> None:
    words, why = refusals(tmp_path)[case]
    with pytest.raises(InputError) as refused:
        run(*words)
    assert why in refused.value.given
    assert refused.value.allowed and refused.value.to_do
    assert not (tmp_path / "scored.csv").exists()
    assert len(read(new)) == ROWS


def test_columns_are_offered_where_none_has_a_usual_name(run: Predict, tmp_path: Path) -> None:
    path = save(tmp_path / "other.csv", [{"n": 1, "body": "fine"}])
    with pytest.raises(InputError, match="no column text or sentence") as refused:
        run(f"input={path}")
    assert refused.value.allowed.endswith("n, body")
    assert len(read(run(f"input={path}", "text=body"))) == 1


@pytest.mark.parametrize("text", ["", "  "])
def test_a_file_without_any_text_is_refused(text: str, run: Predict, tmp_path: Path) -> None:
    path = save(tmp_path / "empty.csv", [{"id": "1", "text": text}])
    with pytest.raises(InputError, match="holds no texts in its column 'text'"):
        run(f"input={path}")
    path.write_text("id,text\n")
    with pytest.raises(InputError, match="holds no rows"):
        run(f"input={path}")


def test_a_row_that_cannot_be_read_costs_nothing(
    run: Predict, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(5, run, monkeypatch)
    good = new.read_text()
    new.write_text(good + "x,y\n")
    scored = stop_after(99, monkeypatch)
    with pytest.raises(InputError, match="line 152 has 2 columns"):
        run()
    assert scored == []  # it is found before anything is scored
    new.write_text(good)
    run()
    assert scored == [5, 6, 7, 8, 9]


def test_models_of_other_classes_are_no_ensemble(
    run: Predict, trained: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=r"classes bad, good, and .* good, bad"):
        run(f"run={trained()},{trained(0, 'hidden', ('good', 'bad'))}")


def test_a_cell_that_a_tsv_cannot_hold_is_named(run: Predict, rows: Any, tmp_path: Path) -> None:
    rows[30]["id"] = "a\tb"
    path, output = save(tmp_path / "x.csv", rows), f"output={tmp_path / 'y.tsv'}"
    with pytest.raises(InputError, match="line 32: column 'id' holds a tab"):
        run(f"input={path}", output)
    assert len(read(run(f"input={path}", output, "keep=stars"))) == ROWS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_called_so_and_what_is_scored_is_kept(
    number: int, run: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calib_ebm.report import parts

    put = parts.Parts.put

    def full(self: Any, at: int, key: str, part: Any) -> None:
        if at == 4:
            raise OSError(number, os.strerror(number))
        put(self, at, key, part)

    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "put", full)
        with pytest.raises(InputError, match=os.strerror(number)) as refused:
            run()
    assert "goes on" in refused.value.to_do
    scored = stop_after(99, monkeypatch)
    run()
    assert scored == [4, 5, 6, 7, 8, 9]


def test_weights_that_are_no_numbers_are_noticed(
    run: Predict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = predict_work.Work._load

    def broken(self: Any) -> Ensemble:
        ensemble = load(self)
        with torch.no_grad():
            next(ensemble.members[0].network.parameters()).fill_(torch.nan)
        return ensemble

    monkeypatch.setattr(predict_work.Work, "_load", broken)
    with pytest.raises(InputError, match="not finite"):
        run()
