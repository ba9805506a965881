"""What the page says first: its title, what was compared, what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def _by_nll(task: TaskRuns) -> list[str]:
    """The task's methods, that of the lowest NLL as trained first.

    Not of the lowest ECE: whoever always gives the classes' shares has none, and knows nothing.
    """
    means = {method: mean_of(runs, f"{BEFORE}/nll") for method, runs in task.members.items()}
    known = {method: mean.value for method, mean in means.items() if mean is not None}
    return sorted(known, key=known.__getitem__)


def _finding(task: TaskRuns) -> str:
    """What was found on one task, in a few sentences."""
    best, name = _by_nll(task)[0], f"{BEFORE}/cal/ece"
    means = {m: as_figure(mean_of(runs, name), name) for m, runs in task.members.items()}
    known = {method: mean for method, mean in means.items() if mean is not None}
    start = f"On {task.task}, {count(task.texts, 'reported text')}"
    if len(known) == 1:
        found = f"{best} alone is measured: top-label ECE {_said(known[best])}."
        return " ".join([f"{start}, {found}", *_one_class(task)])
    if task.baseline is None or task.baseline == best:
        found = f"{best} has the lowest NLL as trained; its top-label ECE is {_said(known[best])}."
        return " ".join([f"{start}, {found}", *_one_class(task)])
    gap = difference(task.members[best], task.members[task.baseline], name)
    verdict = "they share no seed, so that the difference is not known"
    if gap is not None:
        figure = as_figure(gap, name, of_level=False)
        sure = "is more than chance" if gap.sure else "cannot be told from chance"
        verdict = f"the difference, {figure.signed if figure else ''} points, {sure}"
    found = (
        f"{start}, the confidence of {task.baseline} is off by {_said(known[task.baseline])} on "
        f"average (top-label ECE, as trained); that of {best}, which has the lowest NLL, by "
        f"{_said(known[best])}: {verdict}."
    )
    return " ".join([found, *_one_class(task)])


def _one_class(task: TaskRuns) -> Iterator[str]:
    """Methods that have not learned the task: their ECE is low for nothing."""
    for method, runs in task.members.items():
        answers = [member.probs[BEFORE].argmax(dim=1) for member in runs.values()]
        same = sum(bool((answer_N == answer_N[0]).all()) for answer_N in answers)
        if same and task.texts > 1:
            of = f" in {same} of {count(len(answers), 'seed')}" if len(answers) > 1 else ""
            yield f"{method} gives all texts one class{of}: its ECE says nothing of what it knows."


def _said(figure: Figure) -> str:
    return f"{figure.text} {figure.interval}"


def tiles(task: TaskRuns) -> Tiles:
    """The first task's top-label ECE before and after: of the baseline and two of low NLL."""
    first = [] if task.baseline is None else [task.baseline]
    tiles = []
    for method in [*first, *(each for each in _by_nll(task) if each != task.baseline)][:3]:
        for stage, called in ((BEFORE, "ECE as trained"), (AFTER, "after calibration")):
            name = f"{stage}/cal/ece"
            figure = as_figure(mean_of(task.members[method], name), name)
            if figure is not None:
                tiles.append(Tile(f"{method}: {called}", figure.text, figure.interval))
    return Tiles(tuple(tiles))
