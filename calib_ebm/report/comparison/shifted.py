"""Methods against the baseline on sets other than the clean one, in pairs on the same texts.

From the tables that `evaluate` left beside each run's stress.csv: the same resamples of the same
texts for both, so that what a shift does to all methods alike cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calib_ebm.errors import InputError
from calib_ebm.report.comparison.differences import difference
from calib_ebm.report.comparison.find import LeftOut
from calib_ebm.report.comparison.members import (
    STAGES,
    Member,
    TaskRuns,
    comparable,
    member_of,
    resample,
)
from calib_ebm.report.comparison.results import as_figure, title_of
from calib_ebm.report.comparison.sheets import Entry, Sheet
from calib_ebm.report.files import read_run
from calib_ebm.report.stress import CLEAN, read_stress

EVALUATIONS = "evaluations"
PLAIN_SCORING, UNLABELLED = "deterministic", "ood"
BEFORE, AFTER = STAGES
COLUMNS = (
    (f"{BEFORE}/cal/ece", f"{BEFORE}/cal/ece"),
    (f"{AFTER}/cal/ece", f"{AFTER}/cal/ece"),
    (f"{BEFORE}/cal/ece", f"{AFTER}/cal/ece"),
    (f"{BEFORE}/nll", f"{BEFORE}/nll"),
    (f"{AFTER}/nll", f"{AFTER}/nll"),
)
"""A figure of the method, and that of the baseline which it is held against."""
CAPTION = (
    "The same, method less baseline on the same texts [95% interval over seeds and texts]; shares "
    "in percentage points. In the third column the method is as trained and the baseline is "
    "calibrated, on clean texts."
)


def differences_under_stress(
    tasks: Sequence[TaskRuns], resamples: int, seed: int
) -> tuple[Sheet | None, tuple[LeftOut, ...]]:
    """A row for each method and set; and the evaluations that could not be read.

    Args:
        tasks: of the comparison.
        resamples: of each set's texts.
        seed: of these.
    """
    rows: list[tuple[Entry, ...]] = []
    left_out: list[LeftOut] = []
    for task in tasks:
        for name, members in _by_set(task, left_out).items():
            of_method, others = comparable(members, task.baseline)
            left_out += others
            for member in (m for runs in of_method.values() for m in runs.values()):
                resample(member, resamples, seed)
            rows += _rows(task, name, of_method)
    if not rows:
        return None, tuple(left_out)
    titles = (
        title_of(mine) if mine == other else f"{title_of(mine)}, less baseline's after calibration"
        for mine, other in COLUMNS
    )
    head = ("Method", "Task", "Set", "Seeds", *titles)
    return Sheet("stress-differences", CAPTION, head, tuple(rows)), tuple(left_out)


def _by_set(task: TaskRuns, left_out: list[LeftOut]) -> dict[str, list[Member]]:
    """The runs of a task as they are on each set of labelled texts but the clean one."""
    found: dict[str, list[Member]] = {}
    if task.baseline is None:
        return found
    for member in task.every:
        for name, folder in _folders(member).items():
            try:
                run = read_run(folder)
                if run.predictions.of("test").ids and run.predictions.labelled:
                    # Of the run's own seed, whatever the evaluation drew by.
                    run = replace(run, run=replace(run.run, seed=member.seed))
                    of_set = member_of(run, member.method, member.settings)
                    found.setdefault(name, []).append(of_set)
            except InputError as error:
                left_out.append(LeftOut(folder, error.given))
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                # As of a stranger's run: it may be wrong in ways that nobody thought of.
                left_out.append(LeftOut(folder, f"It cannot be read ({type(error).__name__})."))
    return found


def _folders(member: Member) -> dict[str, Path]:
    """Set -> folder of a run's evaluation on it, by the run's own calibrator and plain scoring."""
    home = member.run.path / EVALUATIONS
    calibrator = member.settings.get("calibrator.name", "temperature")
    try:
        rows = read_stress(home)
    except InputError:
        return {}  # the section of the sets themselves has said so, or there is none
    return {
        row.set: home / row.folder
        for row in rows
        if row.kind not in (CLEAN, UNLABELLED)
        and (row.scoring, row.calibrator) == (PLAIN_SCORING, calibrator)
        # One of its own; a stranger's table may say anything.
        and row.folder == Path(row.folder).name != ""
    }


def _rows(
    task: TaskRuns, name: str, of_method: dict[str, dict[int, Member]]
) -> list[tuple[Entry, ...]]:
    base = of_method.get(task.baseline or "")
    rows: list[tuple[Entry, ...]] = []
    for method, runs in of_method.items():
        if base is None or method == task.baseline:
            continue
        found = [difference(runs, base, mine, other) for mine, other in COLUMNS]
        seeds = max((each.seeds for each in found if each is not None), default=0)
        cells = (
            as_figure(each, mine, of_level=False)
            for each, (mine, _) in zip(found, COLUMNS, strict=True)
        )
        if seeds:
            rows.append((method, task.task, name, seeds, *cells))
    return rows
