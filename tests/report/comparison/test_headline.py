"""What the page says first: of the baseline, and of the methods that did best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from calib_ebm.report.comparison.find import read_all
from calib_ebm.report.comparison.headline import summary, tiles
from calib_ebm.report.comparison.members import TaskRuns, gather, resample

Folder = Callable[..., Path]


def read(*folders: Path) -> TaskRuns:
    (task,), _ = gather(read_all(folders).runs, None)
    for member in task.every:
        resample(member, 20, 0)
    return task


def test_the_tiles_are_of_the_baseline_and_of_the_two_lowest(run_folder: Folder) -> None:
    sharp = {"none": 3.0, "hidden": 2.5, "scalar": 1.0, "sharp_hidden": 1.8}
    task = read(*(run_folder(energy=energy, sharp=by) for energy, by in sharp.items()))
    labels = [tile.label for tile in tiles(task).items]
    of = ("plain fine-tuning", "scalar", "sharp_hidden")
    called = ("ECE as trained", "after calibration")
    assert labels == [f"{method}: {stage}" for method in of for stage in called]
    said = summary((task,))
    assert "that of scalar, which has the lowest NLL, by" in said and "one class" not in said


def test_whoever_knows_nothing_is_not_the_best_but_named(run_folder: Folder) -> None:
    """Its ECE is the lowest of all."""
    folders = []
    for seed in (1, 2):
        folders.append(run_folder(seed=seed, sharp=3.0))
        folders.append(run_folder(energy="hidden", seed=seed, sharp=1.8))
        nothing = {"knows_nothing": True} if seed == 2 else {"sharp": 3.5}
        folders.append(run_folder(energy="scalar", seed=seed, **nothing))
    task = read(*folders)
    ece = {run.label: run.values["test/cal/ece"] for run in task.every}
    assert min(ece, key=ece.__getitem__) == "scalar, seed 2"
    said = summary((task,))
    assert "that of hidden, which has the lowest NLL, by" in said
    assert said.count("one class") == 1
    assert "scalar gives all texts one class in 1 of 2 seeds: its ECE says nothing" in said
    assert [tile.label.split(":")[0] for tile in tiles(task).items][2:4] == ["hidden", "hidden"]
    alone = summary((read(folders[-1]),))
    assert "alone is measured" in alone and "gives all texts one class: its ECE" in alone


def test_without_a_baseline_they_are_of_the_lowest_alone(run_folder: Folder) -> None:
    folders = (run_folder(energy="hidden", sharp=3.0), run_folder(energy="scalar"))
    labels = [tile.label.split(":")[0] for tile in tiles(read(*folders)).items]
    assert labels == ["scalar", "scalar", "hidden", "hidden"]
