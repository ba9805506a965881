from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calib_ebm.errors import InputError
from calib_ebm.report.comparison.find import paths_of, read_all

Folder = Callable[..., Path]


def test_paths_patterns_and_paths_of_runs(
    run_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = run_folder(seed=1), run_folder(seed=2)
    (a / "model").mkdir()
    (a.parent / "multirun.yaml").write_text("")
    (a.parent / "other").mkdir()
    assert paths_of((str(a), str(b), str(a))) == (a, b)
    assert paths_of((str(a.parent / "*seed*"),)) == (a, b)
    # A pattern names whatever it matches, so that what is no run can be named as left out.
    assert paths_of((str(a.parent / "*"),)) == (a.parent / "other", a, b)
    assert paths_of((str(a.parent),)) == (a, b)
    assert paths_of((str(tmp_path / "**"),)) == (a, b)
    monkeypatch.chdir(tmp_path)
    assert paths_of(("runs/*seed2",)) == (Path("runs") / b.name,)


@pytest.mark.parametrize("patterns", [(), ("nowhere/*",), ("nowhere",)])
def test_a_pattern_that_names_nothing_is_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="names no"):
        paths_of(patterns)


def spoil_nothing(folder: Path) -> None:
    """The control."""


def no_predictions(folder: Path) -> None:
    (folder / "predictions.parquet").unlink()


def stopped_while_reading(folder: Path) -> None:
    no_predictions(folder)
    record = {"command": "python -m calib_ebm.train task=sst2", "status": "interrupted"}
    (folder / "run.json").write_text(json.dumps(record))


def broken_predictions(folder: Path) -> None:
    (folder / "predictions.parquet").write_bytes(b"PAR1 no more")


def broken_record(folder: Path) -> None:
    (folder / "run.json").write_text("{")


def running(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))


def evaluation(folder: Path) -> None:
    config = json.loads((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(json.dumps(config | {"evaluation": {}}))


def config_is_a_list(folder: Path) -> None:
    (folder / "config.yaml").write_text("[1, 2]")


def config_executes(folder: Path) -> None:
    (folder / "config.yaml").write_text("task: !!python/object/apply:os.getcwd []\n")


def metrics_are_words(folder: Path) -> None:
    (folder / "metrics.json").write_text('{"test/nll": "low"}')


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_predictions, "has no predictions.parquet: its run has not finished"),
        (stopped_while_reading, "has no predictions.parquet: its run has not finished"),
        (broken_predictions, "predictions.parquet cannot be used"),
        (broken_record, "run.json cannot be used: it is not JSON"),
        (running, "has not finished (status running)"),
        (evaluation, "is an evaluation of a run"),
        (config_is_a_list, "does not hold names with values"),
        (config_executes, "not plain YAML"),
        (metrics_are_words, "'low', which is no number"),
        (emptied, "is no run folder: it has no config.yaml"),
        (spoil_nothing, ""),
    ],
)
def test_what_cannot_be_used_is_left_out_and_named(
    run_folder: Folder, spoil: Callable[[Path], None], said: str
) -> None:
    good, bad = run_folder(seed=1), run_folder(seed=2)
    spoil(bad)
    found = read_all((good, bad))
    assert [run.path for run in found.runs] == [good] + ([] if said else [bad])
    assert [each.folder for each in found.left_out] == ([bad] if said else [])
    if said:
        assert said in found.left_out[0].why
