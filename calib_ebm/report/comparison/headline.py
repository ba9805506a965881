"""What the page says first: its title, what was compared, what was found."""

from __future__ import annotations

from collections.abc import Sequence

from calib_ebm.report.blocks import Tile, Tiles
from calib_ebm.report.comparison.differences import difference, mean_of
from calib_ebm.report.comparison.members import TaskRuns
from calib_ebm.report.comparison.results import AFTER, BEFORE, as_figure
from calib_ebm.report.comparison.sheets import Figure
from calib_ebm.report.numbers import count


def baseline(tasks: Sequence[TaskRuns]) -> str | None:
    """The baseline of the first task that has one."""
    return next((task.baseline for task in tasks if task.baseline is not None), None)


def methods(tasks: Sequence[TaskRuns]) -> set[str]:
    """Names of the methods of all tasks."""
    return {method for task in tasks for method in task.methods}


def title(tasks: Sequence[TaskRuns]) -> str:
    """How many methods, on which tasks."""
    names = ", ".join(task.task for task in tasks)
    many = len(methods(tasks))
    what = count(many, "method") if many > 1 else "One method"
    return f"{what} on {names}"


def kicker(tasks: Sequence[TaskRuns]) -> str:
    """How many runs and tables, tasks and seeds, and the baseline."""
    every = [member for task in tasks for member in task.every]
    tables = sum(member.is_table for member in every)
    runs = len(every) - tables
    seeds = sorted({member.seed for member in every})
    base = baseline(tasks)
    parts = (
        *((count(runs, "run"),) if runs else ()),
        *((count(tables, "table"),) if tables else ()),
        count(len(tasks), "task"),
        f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} only",
        f"baseline: {base}" if base else "no baseline",
    )
    return " · ".join(parts)


def summary(tasks: Sequence[TaskRuns]) -> str:
    """What was found on each of the first tasks."""
    said = [_finding(task) for task in tasks[:4]]
    if len(tasks) > len(said):
        said.append(f"{count(len(tasks) - len(said), 'further task')} below.")
    return " ".join(said)


def _finding(task: TaskRuns) -> str:
    """What was found on one task, in a sentence or two."""
    name = f"{BEFORE}/cal/ece"
    means = {m: as_figure(mean_of(runs, name), name) for m, runs in task.members.items()}
    known = {method: mean for method, mean in means.items() if mean is not None}
    lowest = min(known, key=lambda method: known[method].value)
    start = f"On {task.task}, {count(task.texts, 'reported text')}"
    if len(known) == 1:
        return f"{start}, {lowest} alone is measured: top-label ECE {_said(known[lowest])}."
    if task.baseline is None or task.baseline == lowest:
        return f"{start}, {lowest} has the lowest top-label ECE as trained, {_said(known[lowest])}."
    gap = difference(task.members[lowest], task.members[task.baseline], name)
    verdict = "they share no seed, so that the difference is not known"
    if gap is not None:
        figure = as_figure(gap, name, of_level=False)
        sure = "is more than chance" if gap.sure else "cannot be told from chance"
        verdict = f"the difference, {figure.signed if figure else ''} points, {sure}"
    return (
        f"{start}, the confidence of {task.baseline} is off by {_said(known[task.baseline])} on "
        f"average (top-label ECE, as trained); that of {lowest} by {_said(known[lowest])}: "
        f"{verdict}."
    )


def _said(figure: Figure) -> str:
    return f"{figure.text} {figure.interval}"


def tiles(task: TaskRuns) -> Tiles:
    """The first task's top-label ECE before and after: of the baseline and of the two lowest."""
    name = f"{BEFORE}/cal/ece"
    means = {method: mean_of(runs, name) for method, runs in task.members.items()}
    lowest = sorted((m.value, each) for each, m in means.items() if m and each != task.baseline)
    first = [] if task.baseline is None else [task.baseline]
    tiles = []
    for method in [*first, *(each for _, each in lowest)][:3]:
        for stage, called in ((BEFORE, "ECE as trained"), (AFTER, "after calibration")):
            name = f"{stage}/cal/ece"
            figure = as_figure(mean_of(task.members[method], name), name)
            if figure is not None:
                tiles.append(Tile(f"{method}: {called}", figure.text, figure.interval))
    return Tiles(tuple(tiles))
