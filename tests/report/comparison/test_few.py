"""What methods are worth in labels, on made-up runs whose overconfidence is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from calib_ebm.calibration.few_labels import after_few_labels
from calib_ebm.report.blocks import Panels, Paragraph
from calib_ebm.report.comparison.few import draw, worth_of, worth_section
from calib_ebm.report.comparison.members import TaskRuns, gather
from calib_ebm.report.comparison.page import write_comparison
from calib_ebm.report.comparison.sheets import Figure
from calib_ebm.report.files import read_run

Folder = Callable[..., Path]


def tasks_of(*folders: Path) -> tuple[TaskRuns, ...]:
    tasks, left_out = gather([read_run(folder) for folder in folders], None)
    assert not left_out
    return tasks


def test_each_number_is_that_of_the_draws(run_folder: Folder) -> None:
    plain = [run_folder(seed=seed, sharp=3.0) for seed in (1, 2)]
    joint = [run_folder(energy="hidden", seed=seed, sharp=1.2) for seed in (1, 2, 3)]
    (task,) = tasks_of(*plain, *joint)
    drawn = draw(task, seed=4, draws=12)
    assert drawn is not None
    assert drawn.sizes == (0, 10, 20, 50, 100) and drawn.measured == 100
    labels_N = torch.from_numpy(task.first.test.labels_N)

    def ece_SR(method: str, seed: int) -> np.ndarray:
        logits_NC = torch.from_numpy(task.members[method][seed].test.logits_NC)
        found = after_few_labels(logits_NC, labels_N, drawn.sizes, draws=12, seed=4)
        return found.ece_SR.numpy()

    (other,) = (name for name in task.members if name != task.baseline)
    seeds = {name: tuple(runs) for name, runs in drawn.ece_SR.items()}
    assert seeds == {task.baseline: (1, 2), other: (1, 2, 3)}
    expected = np.concatenate([ece_SR(other, seed) for seed in (1, 2, 3)], axis=1)
    np.testing.assert_array_equal(drawn.of_all(other), expected)
    shares = [ece_SR(other, seed)[:1] < ece_SR(task.baseline or "", seed) for seed in (1, 2)]
    np.testing.assert_allclose(drawn.lower_S(other), np.concatenate(shares, axis=1).mean(axis=1))
    assert drawn.lower_S(other)[0] > 0.9 and drawn.lower_S(other)[1] > 0.5


def test_a_method_that_is_as_overconfident_is_worth_nothing(run_folder: Folder) -> None:
    """The control: what is ahead above is so for its calibration."""
    (task,) = tasks_of(run_folder(sharp=3.0), run_folder(energy="hidden", sharp=3.0))
    _, (_, shares) = worth_section([task], ["toy"], seed=0, draws=30)
    assert [row[2] for row in shares.rows] == ["fewer than 10"]
    (task,) = tasks_of(
        run_folder(task="b", sharp=3.0), run_folder(task="b", energy="hidden", sharp=1.0)
    )
    _, (_, shares) = worth_section([task], ["toy"], seed=0, draws=30)
    assert [row[2] for row in shares.rows] != ["fewer than 10"]


def test_a_run_s_own_prior_is_used(run_folder: Folder) -> None:
    further = {"calibrator.prior": 50.0}
    (task,) = tasks_of(
        *(run_folder(energy=e, sharp=2.0, further=further) for e in ("none", "hidden"))
    )
    drawn = draw(task, seed=0, draws=4)
    assert drawn is not None
    test = task.members[task.baseline or ""][1].test
    given = torch.from_numpy(test.logits_NC), torch.from_numpy(test.labels_N), drawn.sizes
    for prior, alike in ((50.0, True), (0.0, False)):
        found = after_few_labels(*given, draws=4, prior=prior).ece_SR.numpy()
        assert np.array_equal(found, drawn.of_all(task.baseline or "")) == alike


def test_tasks_of_several_sizes_stand_in_one_table(run_folder: Folder) -> None:
    tasks = tasks_of(
        *(run_folder(task="a", energy=e, texts=400, sharp=2.0) for e in ("none", "hidden")),
        *(run_folder(task="b", energy=e, texts=50, sharp=2.0) for e in ("none", "hidden")),
    )
    section, (eces, shares) = worth_section(tasks, ["a", "b"], seed=0, draws=5)
    assert eces.head[3:] == ("No label", "10 labels", "20 labels", "50 labels", "100 labels")
    assert [row[:3] for row in eces.rows] == [
        (name, task, 1) for task in "ab" for name in tasks[0].members
    ]
    large, small = eces.rows[0][3:], eces.rows[2][3:]
    assert all(isinstance(cell, Figure) for cell in large)
    assert [cell is None for cell in small] == [False, False, True, True, True]
    for cell in large:
        assert isinstance(cell, Figure) and cell.low <= cell.value <= cell.high
    assert [row[-1] is None for row in shares.rows] == [False, True]
    (panels,) = (block for block in section.blocks if isinstance(block, Panels))
    assert [panel.title for panel in panels.items] == ["a", "b"]
    assert "Measured on 100 texts" in panels.items[0].caption
    assert "Measured on 15 texts" in panels.items[1].caption


@pytest.mark.parametrize(
    "runs",
    [
        [{"energy": "hidden"}],  # no baseline
        [{}],  # nothing beside it
        [{"seed": 1}, {"energy": "hidden", "seed": 2}],  # no seed in common
        [{"texts": 30}, {"texts": 30, "energy": "hidden"}],
    ],
)
def test_where_there_is_nothing_to_hold_against_another_it_says_so(
    run_folder: Folder, runs: list[dict[str, object]]
) -> None:
    tasks = tasks_of(*(run_folder(**each) for each in runs))
    section, sheets = worth_section(tasks, ["toy"], seed=0, draws=3)
    (said,) = section.blocks
    assert isinstance(said, Paragraph) and "takes a baseline" in said.text and not sheets


def test_a_task_that_it_says_nothing_of_is_named(run_folder: Folder) -> None:
    tasks = tasks_of(
        *(run_folder(task="large", energy=e, sharp=2.0) for e in ("none", "hidden")),
        *(run_folder(task="small", energy=e, texts=30, sharp=2.0) for e in ("none", "hidden")),
    )
    section, (eces, _) = worth_section(tasks, ["large", "small"], seed=0, draws=3)
    about = section.blocks[0]
    assert isinstance(about, Paragraph) and "Not of small: this takes" in about.text
    assert {row[1] for row in eces.rows} == {"large"}


@pytest.mark.parametrize(
    ("shares", "worth"),
    [
        ([0.9, 0.8, 0.7], "more than 50"),
        ([0.9, 0.5, 0.5], "more than 50"),
        ([0.4, 0.9, 0.9], "fewer than 10"),
        ([0.75, 0.25, 0.0], "10"),  # the root of 10 times 20, to one figure
        ([0.9, 0.6, 0.4], "30"),
    ],
)
def test_worth_is_where_half_of_the_draws_are_lower(shares: list[float], worth: str) -> None:
    assert worth_of([10, 20, 50], np.array(shares)) == worth


def test_the_page_has_it_with_its_tables(run_folder: Folder, tmp_path: Path) -> None:
    run_folder(sharp=3.0), run_folder(energy="hidden", sharp=1.0)
    path, comparison = write_comparison(str(tmp_path / "runs" / "*"), tmp_path / "out")
    page = path.read_text(encoding="utf-8")
    assert page.index("What can be told from chance") < page.index("What it is worth in labels")
    for ending in ("csv", "md", "tex"):
        assert (tmp_path / "out" / "tables" / f"few-labels.{ending}").is_file()
        assert (tmp_path / "out" / "tables" / f"few-labels-share.{ending}").is_file()
    slugs = [sheet.slug for sheet in comparison.sheets]
    assert len(slugs) == len(set(slugs))
