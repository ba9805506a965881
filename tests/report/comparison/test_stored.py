"""Stored tables beside runs: the same figures as the run they come from, and each mistake named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from calib_ebm.calibration.floors import null_ece
from calib_ebm.errors import InputError
from calib_ebm.report.comparison.find import paths_of, read_all
from calib_ebm.report.comparison.members import Member, TaskRuns, gather, resample
from calib_ebm.report.comparison.page import write_comparison
from calib_ebm.report.comparison.stored import TableSettings, name_of_table
from calib_ebm.report.files import Predictions, read_predictions, write_metrics
from calib_ebm.report.foreign import TableColumns

Folder = Callable[..., Path]
NASTY = "<script>alert(1)<script> & $x_1$ [bold]"


def exported(table: Predictions, path: Path, *, split: bool = True) -> Path:
    """A run's predictions as somebody else might keep them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = table.logits_NC.shape[1]
    head = ["id", *(f"logit_{c}" for c in range(classes)), "label", *(["split"] if split else [])]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for row, one in enumerate(table.ids):
            cells = [one, *table.logits_NC[row].tolist(), int(table.labels_N[row])]
            writer.writerow([*cells, *([table.splits[row]] if split else [])])
    return path


@pytest.fixture
def tables(run_folder: Folder, tmp_path: Path) -> Path:
    """Two methods by two seeds, in a folder of tables."""
    home = tmp_path / "results" / "sst2"
    for energy, method, sharp in (("none", "plain", 3.0), ("hidden", "hidden", 1.0)):
        for seed in (1, 2):
            folder = run_folder(energy=energy, seed=seed, sharp=sharp)
            name = f"{method}-seed{seed}.csv"
            exported(read_predictions(folder), home / name, split=False)
    return home


def compared(*paths: Path) -> tuple[TaskRuns, ...]:
    found = read_all(paths)
    assert found.left_out == ()
    tasks, left_out = gather(found.runs, None)
    assert left_out == ()
    for task in tasks:
        for member in task.every:
            resample(member, 50, 0)
    return tasks


def only(*paths: Path) -> Member:
    (task,) = compared(*paths)
    (member,) = task.every
    return member


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/r/sst2/hidden-seed1.parquet", ("sst2", "hidden", 1)),
        ("/r/sst2/hidden_seed12.csv", ("sst2", "hidden", 12)),
        ("/r/sst2/hidden.csv", ("sst2", "hidden", None)),
        ("/r/sst2/a.b-seed3-seed4.csv", ("sst2", "a.b-seed3", 4)),
        ("/r/sst2/-seed1.csv", ("sst2", "-seed1", None)),
        ("/r/sst2/hidden-seedling.csv", ("sst2", "hidden-seedling", None)),
    ],
)
def test_a_table_is_named_by_where_it_lies(path: str, name: tuple[str, str, int | None]) -> None:
    assert name_of_table(Path(path)) == name


def test_a_table_made_of_a_run_has_the_run_s_figures(run_folder: Folder, tmp_path: Path) -> None:
    folder = run_folder(sharp=2.0)
    path = exported(read_predictions(folder), tmp_path / "toy" / "mine-seed1.csv")
    run, table = only(folder), only(path)
    assert {*table.values} == {*run.values}
    for name, value in run.values.items():
        assert table.values[name] == pytest.approx(value, abs=1e-12), name
        np.testing.assert_allclose(table.resampled[name], run.resampled[name], atol=1e-12)
    assert (table.task, table.method, table.seed) == ("toy", "mine", 1)
    # The control: another run's figures are other ones.
    other = only(run_folder(sharp=2.5, seed=2))
    assert abs(other.values["test/nll"] - table.values["test/nll"]) > 1e-3


def test_crossfitted_tables_keep_their_folds(run_folder: Folder, tmp_path: Path) -> None:
    from dataclasses import replace

    from calib_ebm.report.predictions import FILE, write_table

    folder = run_folder(sharp=3.0)
    table = read_predictions(folder)
    folds = np.arange(len(table.ids)) % 4
    write_table(folder, replace(table, splits=("test",) * len(table.ids), folds_N=folds))
    write_metrics(folder, {})
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "mine-seed1.parquet"
    path.write_bytes((folder / FILE).read_bytes())
    run, stored = only(folder), only(path)
    assert len(stored.test.ids) == len(table.ids)
    torch.testing.assert_close(stored.probs["test_calibrated"], run.probs["test_calibrated"])


def test_folds_report_every_row(tables: Path) -> None:
    path = tables / "plain-seed1.csv"
    (task,), _ = gather(read_all((path,), TableSettings(folds=5)).runs, None)
    assert task.texts == 400 and only(path).test.ids != task.first.test.ids


def test_no_ece_stands_without_its_floor(tables: Path) -> None:
    member = only(tables / "plain-seed1.csv")
    for stage, probs_NC in member.probs.items():
        floor = null_ece(probs_NC, seed=1).mean
        assert member.run.metrics[f"{stage}/cal/ece/floor"] == pytest.approx(floor, abs=1e-12)
    # Three times too sharp: more than chance, and less after calibration.
    assert member.run.metrics["test/cal/ece/p_value"] < 0.01
    assert member.run.metrics["test_calibrated/cal/ece/p_value"] > 0.01


def test_folders_of_tables_and_what_is_none(tables: Path, run_folder: Folder) -> None:
    four = tuple(sorted(tables.iterdir()))
    (tables / ".hidden.csv").write_text("")
    (tables / "notes.txt").write_text("")
    home = tables.parent
    assert paths_of((str(tables),)) == paths_of((str(home),)) == four
    assert paths_of((str(home / "*"),)) == paths_of((str(tables / "*.csv"),)) == four
    assert paths_of((str(home / "**"),)) == four
    run = run_folder(task="other")
    runs = paths_of((str(run.parent),))
    assert run in runs and not any(one.is_file() for one in runs)
    with pytest.raises(InputError, match="names no run folder and no table"):
        paths_of((str(tables / "notes.txt"),))


def test_a_run_s_file_is_no_table_of_its_own(run_folder: Folder) -> None:
    folder = run_folder()
    found = read_all(paths_of((str(folder / "*.parquet"),)))
    assert found.runs == () and found.left_out
    assert all(f"is a file of {folder}" in each.why for each in found.left_out)


HEAD = "id,prob_a,prob_b,label\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "x,0.5,0.5,0\ny,nan,0.5,1\n", "row 2 has nothing in 'prob_a'"),
        (HEAD + "x,0.5,0.5,0\ny,0.5,0.4,1\n", "sum"),
        (HEAD + "x,2.5,-0.5,0\ny,0.5,0.5,1\n", "logits=prob_a,prob_b"),
        (HEAD + "x,0.5,0.5,0\ny,0.5,0.5,2\n", "has a label that is '2'"),
        (HEAD + "x,0.5,0.5,0\nx,0.5,0.5,1\n", "row 2 has the id 'x'"),
        ("id,prob_a,prob_b\nx,0.5,0.5\ny,0.5,0.5\n", "rows without labels"),
        ("id,a,b,label\nx,0.5,0.5,0\ny,0.5,0.5,1\n", "Name them in the order of the classes"),
        (HEAD + "x,0.5,0.5,0\n", "has one row only"),
        ("id,prob_a,prob_b,label,split\nx,.5,.5,0,test\ny,.5,.5,1,test\n", "no row of split fit"),
        (HEAD, "has no rows"),
    ],
)
def test_a_broken_table_is_left_out_with_the_reason(tables: Path, text: str, said: str) -> None:
    bad = tables / "bad-seed1.csv"
    bad.write_text(text)
    found = read_all(paths_of((str(tables),)))
    assert len(found.runs) == 4
    assert [each.folder for each in found.left_out] == [bad]
    assert said in found.left_out[0].why and str(bad) not in found.left_out[0].why[:20]


def test_when_nothing_is_left_it_is_said_what_to_do(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="None of 1 file can be compared") as refused:
        write_comparison([str(bad)], tmp_path / "out")
    assert "no columns that are known" in refused.value.given
    assert "a label, and an id" in refused.value.allowed and "probs=" in refused.value.to_do
    assert not (tmp_path / "out").exists()


def test_settings_of_tables_without_a_table_are_refused(run_folder: Folder, tmp_path: Path) -> None:
    given = TableSettings(TableColumns(label="truth"), labels=("a", "b"))
    with pytest.raises(InputError, match="label, labels given, and runs= names no table"):
        write_comparison([str(run_folder())], tmp_path / "out", tables=given)


def test_other_ids_and_other_labels_are_no_comparison(tables: Path) -> None:
    text = (tables / "hidden-seed1.csv").read_text()
    (tables / "ids-seed1.csv").write_text(text.replace("dev-", "test-"))
    lines = text.splitlines()
    flipped = [f"{one[:-1]}{1 - int(one[-1])}" for one in lines[1:]]
    (tables / "labels-seed1.csv").write_text("\n".join([lines[0], *flipped]) + "\n")
    (task,), left_out = gather(read_all(paths_of((str(tables),))).runs, None)
    why = {each.folder.stem: each.why for each in left_out}
    assert {*why} == {"ids-seed1", "labels-seed1"}
    assert "is on one side only" in why["ids-seed1"]
    assert "has the label" in why["labels-seed1"]
    assert task.methods == ("plain", "hidden") and task.baseline == "plain"


def test_two_methods_that_could_be_plain_are_no_baseline(tables: Path) -> None:
    (tables / "none-seed1.csv").write_text((tables / "plain-seed1.csv").read_text())
    (task,) = compared(*paths_of((str(tables),)))
    assert task.baseline is None
    (task,), _ = gather(read_all(paths_of((str(tables),))).runs, "none")
    assert task.baseline == "none"


def test_a_table_beside_runs_is_compared_with_them(run_folder: Folder, tmp_path: Path) -> None:
    plain, hidden = run_folder(), run_folder(energy="hidden")
    table = read_predictions(run_folder(energy="scalar"))
    path = exported(table, tmp_path / "toy" / "hidden-seed1.csv")
    (task,) = compared(plain, hidden, path)
    assert task.methods == ("plain fine-tuning", "hidden", "hidden (table)")
    assert task.baseline == "plain fine-tuning"


def test_the_page_of_tables_says_how_they_were_read_and_escapes(
    tables: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        text = (tables / f"hidden-seed{seed}.csv").read_text()
        (tables / f"{NASTY}-seed{seed}.csv").write_text(text)
    path, comparison = write_comparison([str(tables)], tmp_path / "out", resamples=20)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    for said in (
        "6 tables",
        "the table does not say which rows calibrate",
        "do not say what it cost",
        "do not tell of the training",
        "None of these stored tables has a column of energies",
        "baseline: plain",
        "floor ",
    ):
        assert said in page, said
    assert "its runs" not in page
    found = {sheet.slug for sheet in comparison.sheets}
    assert found == {
        "methods-sst2",
        "differences",
        "without-labels",
        "few-labels",
        "few-labels-share",
    }
    manifest = json.loads((path.parent / "comparison.json").read_text())
    assert len(manifest["runs"]) == 6 and manifest["left_out"] == []
