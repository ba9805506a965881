from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from calib_ebm.report.comparison.find import read_all
from calib_ebm.report.comparison.making import cost_sheet, settings_sheet
from calib_ebm.report.comparison.members import TaskRuns, gather, resample
from calib_ebm.report.comparison.paired import differences_sheets
from calib_ebm.report.comparison.results import (
    figures_of,
    over_tasks,
    overview_sheets,
    slugs_of,
    task_sheet,
)
from calib_ebm.report.comparison.sheets import Amount, Figure, Sheet

Folder = Callable[..., Path]


def read(*folders: Path, baseline: str | None = None) -> tuple[TaskRuns, ...]:
    tasks, left_out = gather(read_all(tuple(sorted(folders))).runs, baseline)
    assert left_out == ()
    for task in tasks:
        for runs in task.members.values():
            for run in runs.values():
                resample(run, 200, 0)
    return tasks


def cell(sheet: Sheet, method: str, head: str) -> Figure:
    at = next(index for index, name in enumerate(sheet.head) if name.startswith(head))
    found = next(row for row in sheet.rows if row[0] == method)[at]
    assert isinstance(found, Figure)
    return found


def test_a_cell_holds_mean_spread_and_the_difference_in_pairs(grid: list[Path]) -> None:
    (task,) = read(*grid)
    sheet = task_sheet(task, "toy")
    nll = {
        method: [run.run.metrics["test/nll"] for run in runs.values()]
        for method, runs in task.members.items()
    }
    plain, hidden = (cell(sheet, name, "NLL, as trained") for name in task.methods)
    assert plain.value == pytest.approx(fmean(nll["plain fine-tuning"]))
    assert plain.spread == pytest.approx(stdev(nll["plain fine-tuning"]))
    assert plain.low < plain.value < plain.high and plain.change is None
    assert hidden.change is not None
    pairs = [a - b for a, b in zip(nll["hidden"], nll["plain fine-tuning"], strict=True)]
    assert hidden.change.value == pytest.approx(fmean(pairs))
    assert hidden.best and not plain.best and hidden.change.high < 0


def test_ece_has_its_floor_and_shares_their_bounds(grid: list[Path]) -> None:
    (task,) = read(*grid)
    sheet = task_sheet(task, "toy")
    ece = cell(sheet, "hidden", "ECE, top-label, as trained")
    floors = [run.run.metrics["test/cal/ece/floor"] for run in task.members["hidden"].values()]
    assert ece.floor == pytest.approx(fmean(floors)) and ece.floor_p is None
    assert ece.low >= 0 and ece.change is not None and ece.change.unit == "points"
    accuracy = cell(sheet, "hidden", "Accuracy")
    assert accuracy.floor is None and not accuracy.best  # the same classes are predicted


def test_with_one_seed_there_is_no_spread_but_the_p_value_of_the_floor(
    run_folder: Folder,
) -> None:
    (task,) = read(run_folder(sharp=3.0))
    ece = cell(task_sheet(task, "toy"), "plain fine-tuning", "ECE, top-label, as trained")
    assert ece.spread is None and ece.floor_p == pytest.approx(1 / 51)
    assert not ece.best and ece.low < ece.value < ece.high


def test_figures_that_a_run_lacks_are_left_out_of_the_table(run_folder: Folder) -> None:
    (task,) = read(run_folder(truth=True), run_folder(energy="hidden", truth=True))
    assert "test/cal/true" in figures_of(task)
    folder = run_folder(energy="scalar")
    (task,) = read(*(run.run.path for of in task.members.values() for run in of.values()), folder)
    assert "test/cal/true" not in figures_of(task)


def test_methods_by_tasks_with_the_mean_over_tasks(run_folder: Folder) -> None:
    folders = [
        run_folder(task=task, energy=energy, seed=seed, sharp=sharp, data_seed=len(task))
        for task in ("one", "three")
        for energy, sharp in (("none", 3.0), ("hidden", 1.0))
        for seed in (1, 2)
    ]
    tasks = read(*folders, run_folder(task="one", energy="scalar", data_seed=3))
    sheets = overview_sheets(tasks)
    assert [sheet.slug for sheet in sheets] == [
        "tasks-ece-top-label-as-trained",
        "tasks-ece-top-label-after-calibration",
        "tasks-nll-as-trained",
        "tasks-nll-after-calibration",
        "tasks-accuracy",
    ]
    nll = sheets[2]
    assert nll.head == ("Method", "one", "three", "Mean of tasks")
    assert [row[0] for row in nll.rows] == ["plain fine-tuning", "hidden", "scalar"]
    assert nll.rows[2][2:] == (None, None)  # scalar was not run on the other task
    one, three = (cell(nll, "hidden", name) for name in ("one", "three"))
    mean = cell(nll, "hidden", "Mean of tasks")
    assert mean.value == pytest.approx((one.value + three.value) / 2)
    assert mean.change is not None and one.change is not None and three.change is not None
    assert mean.change.value == pytest.approx((one.change.value + three.change.value) / 2)
    # Of two independent tasks the mean is surer than either.
    assert mean.high - mean.low < max(one.high - one.low, three.high - three.low)
    assert over_tasks(tasks, "scalar", None, "test/nll") is None
    assert overview_sheets(tasks[:1]) == ()


def test_each_difference_says_whether_it_is_sure_and_what_it_would_take(
    grid: list[Path],
) -> None:
    tasks = read(*grid)
    sheet, _ = differences_sheets(tasks)
    rows = {row[2]: row for row in sheet.rows}
    assert {row[0] for row in sheet.rows} == {"hidden"}
    ece, accuracy = rows["ECE, top-label, as trained"], rows["Accuracy"]
    figure = ece[3]
    assert isinstance(figure, Figure) and figure.high < 0
    assert ece[4:6] == (3, "yes") and isinstance(ece[7], int) and ece[7] < tasks[0].texts
    assert isinstance(ece[6], float) and ece[6] < 0.05
    assert accuracy[5:] == ("no", 1.0, "no difference")


def test_without_a_baseline_there_are_no_differences(run_folder: Folder) -> None:
    folders = (run_folder(energy="hidden"), run_folder(energy="scalar"))
    assert differences_sheets(read(*folders)) == ()
    sheets = differences_sheets(read(*folders, baseline="scalar"))
    assert {row[0] for sheet in sheets for row in sheet.rows} == {"hidden"}


def test_what_a_method_gives_without_the_labels_stands_beside_the_calibrated_baseline(
    grid: list[Path],
) -> None:
    tasks = read(*grid)
    _, sheet = differences_sheets(tasks)
    assert sheet.slug == "without-labels"
    rows = {row[2]: row[3] for row in sheet.rows}
    assert {*rows} == {f"{name}, as trained" for name in ("ECE, top-label", "NLL", "Brier score")}
    plain, hidden = (tasks[0].members[name] for name in ("plain fine-tuning", "hidden"))
    for name, title in (("cal/ece", "ECE, top-label, as trained"), ("nll", "NLL, as trained")):
        each = [
            hidden[s].values[f"test/{name}"] - plain[s].values[f"test_calibrated/{name}"]
            for s in hidden
        ]
        figure = rows[title]
        assert isinstance(figure, Figure) and figure.value == pytest.approx(sum(each) / len(each))


def test_costs_are_means_over_the_runs_that_paid_them(grid: list[Path]) -> None:
    sheet = cost_sheet(read(*grid))
    row = next(row for row in sheet.rows if row[0] == "hidden")
    # 10, 20 and 30 seconds; the noise was drawn by the first seed and found by the others.
    assert row[2:] == (3, Amount(20.0, 10.0), Amount(4.0, None), Amount(700.0, 0.0))


def test_tasks_of_like_names_get_files_of_their_own(run_folder: Folder) -> None:
    tasks = read(*(run_folder(task=name, name=str(i)) for i, name in enumerate(("a b", "a/b"))))
    assert sorted(slugs_of(tasks)) == ["a-b", "a-b-2"]


def test_settings_that_a_name_leaves_out_stand_in_a_table(run_folder: Folder) -> None:
    more = {"noise.per_text": 8, "trainer.max_steps": 600}
    tasks = read(
        run_folder(),
        run_folder(energy="hidden"),
        run_folder(energy="hidden", name="k", further=more),
    )
    sheet = settings_sheet(tasks)
    assert sheet is not None
    rows = {row[0]: row[2] for row in sheet.rows}
    assert rows["hidden, K=8"] == ("energy.name=hidden, noise.per_text=8, trainer.max_steps=600")
    assert rows["plain fine-tuning"] == "energy.name=none, trainer.max_steps=300"
    assert (
        settings_sheet(read(next(iter(tasks[0].members["hidden, K=1"].values())).run.path)) is None
    )
