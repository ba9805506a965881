"""The tables: methods by figures of a task, methods by tasks, and differences."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np

from calib_ebm.report.columns import Floats
from calib_ebm.report.comparison.differences import (
    Combined,
    best_of,
    combine,
    difference,
    mean_of,
)
from calib_ebm.report.comparison.members import STAGES, Member, TaskRuns
from calib_ebm.report.comparison.sheets import Entry, Figure, Sheet
from calib_ebm.report.tables import METRICS, Metric

BEFORE, AFTER = STAGES
SHOWN = ("cls/acc", "cls/mcc", "cls/f1", "cal/ece", "nll", "brier", "cal/true", "selective/aurc")
"""Figures of the tables, without their stage."""
UNCHANGED = ("cls/acc", "cls/mcc", "cls/f1")
"""What a calibrator that keeps the order of classes leaves as it is: shown once."""
BOUNDS = {
    "cls/acc": (0.0, 1.0),
    "cls/mcc": (-1.0, 1.0),
    "cls/f1": (0.0, 1.0),
    "cal/ece": (0.0, 1.0),
    "nll": (0.0, math.inf),
    "brier": (0.0, 2.0),
    "cal/true": (0.0, 1.0),
    "selective/aurc": (0.0, 1.0),
}
"""Between which a figure lies."""
OVERVIEW = (
    f"{BEFORE}/cal/ece",
    f"{AFTER}/cal/ece",
    f"{BEFORE}/nll",
    f"{AFTER}/nll",
    "test/cls/acc",
)
"""Figures of the tables of methods by tasks."""
HOW_TO_READ = (
    "Mean over seeds [95% interval, over seeds and texts]. ±: standard deviation over seeds. Δ: "
    "difference to the baseline on the same texts and seeds, with its interval. Floor: what a "
    "perfectly calibrated model with the same probabilities would show, mean over seeds. In bold: "
    "better than the second best, and the interval of that difference leaves out zero."
)


def metric_of(figure: str) -> Metric:
    """The record of a figure, whatever its stage."""
    return next(metric for metric in METRICS if figure.endswith(f"/{metric.name}"))


def title_of(figure: str) -> str:
    """How a figure is called: its stage only where it matters.

    >>> title_of("test/cls/acc"), title_of("test_calibrated/nll")
    ('Accuracy', 'NLL, after calibration')
    """
    stage, _, name = figure.partition("/")
    label = metric_of(figure).label
    return label if name in UNCHANGED else f"{label}, {STAGES[stage]}"


def figures_of(task: TaskRuns) -> tuple[str, ...]:
    """The figures that all runs of a task have, in the order of the table."""
    every = [run.values for runs in task.members.values() for run in runs.values()]
    wanted = [
        f"{stage}/{name}"
        for name in SHOWN
        for stage in ((BEFORE,) if name in UNCHANGED else STAGES)
    ]
    return tuple(name for name in wanted if all(name in values for values in every))


def slug_of(text: str) -> str:
    """Letters, digits and hyphens of a text, for a file's name.

    >>> slug_of("SST-2 <b>/..")
    'sst-2-b'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "task"


def slugs_of(tasks: Sequence[TaskRuns]) -> list[str]:
    """A slug for each task, all different."""
    slugs: list[str] = []
    for task in tasks:
        slug, number = slug_of(task.task), 2
        while slug in slugs:
            slug, number = f"{slug_of(task.task)}-{number}", number + 1
        slugs.append(slug)
    return slugs


# ------------------------------------------------------------------------- methods by figures


def task_sheet(task: TaskRuns, slug: str) -> Sheet:
    """A row for each method, a column for each figure."""
    names = figures_of(task)
    cells = {name: _column(task, name) for name in names}
    rows: list[tuple[Entry, ...]] = [
        (method, len(runs), *(cells[name][method] for name in names))
        for method, runs in task.members.items()
    ]
    head = ("Method", "Seeds", *(title_of(name) + _arrow(name) for name in names))
    caption = f"{task.task}, {task.texts:,} reported texts."
    return Sheet(f"methods-{slug}", caption, head, tuple(rows), HOW_TO_READ)


def _arrow(figure: str) -> str:
    return {"higher": " ↑", "lower": " ↓"}[metric_of(figure).better]


def _column(task: TaskRuns, name: str) -> dict[str, Figure | None]:
    """A figure of every method of a task."""
    best, _ = best_of(task.members, name, metric_of(name).better)
    column: dict[str, Figure | None] = {}
    for method, runs in task.members.items():
        change = None
        if task.baseline is not None and method != task.baseline:
            change = difference(runs, task.members[task.baseline], name)
        floor, chance = floor_of(runs.values(), name)
        column[method] = as_figure(
            mean_of(runs, name),
            name,
            change=as_figure(change, name, of_level=False),
            floor=floor,
            floor_p=chance,
            best=method == best,
        )
    return column


def as_figure(
    combined: Combined | None,
    name: str,
    *,
    of_level: bool = True,
    change: Figure | None = None,
    floor: float | None = None,
    floor_p: float | None = None,
    best: bool = False,
) -> Figure | None:
    """A mean, or a difference (not `of_level`), as it stands in a cell."""
    if combined is None:
        return None
    low, high = BOUNDS[metric_of(name).name] if of_level else (-math.inf, math.inf)
    return Figure(
        combined.value,
        # Student's interval knows nothing of where a figure ends.
        max(combined.low, low),
        min(combined.high, high),
        metric_of(name).unit if of_level else metric_of(name).unit.replace("%", "points"),
        combined.spread if of_level else None,
        change,
        floor,
        floor_p,
        best,
    )


def floor_of(runs: Iterable[Member], name: str) -> tuple[float | None, float | None]:
    """Mean over seeds of the floor; the p-value against it only where there is one seed."""
    floors = [run.run.metrics.get(f"{name}/floor") for run in runs]
    chances = [run.run.metrics.get(f"{name}/p_value") for run in runs]
    known = [floor for floor in floors if floor is not None and math.isfinite(floor)]
    if not known or len(known) < len(floors):
        return None, None
    return fmean(known), chances[0] if len(chances) == 1 else None


# --------------------------------------------------------------------------- methods by tasks


def overview_sheets(tasks: Sequence[TaskRuns]) -> tuple[Sheet, ...]:
    """For each main figure, a row for each method and a column for each task; none of one task."""
    if len(tasks) < 2:
        return ()
    return tuple(sheet for name in OVERVIEW if (sheet := _overview_sheet(tasks, name)) is not None)


def _overview_sheet(tasks: Sequence[TaskRuns], name: str) -> Sheet | None:
    tasks = [task for task in tasks if name in figures_of(task)]
    if len(tasks) < 2:
        return None
    methods = sorted({m for task in tasks for m in task.methods})
    baselines = {task.baseline for task in tasks}
    methods.sort(key=lambda method: (method not in baselines, method))
    columns = [_column(task, name) for task in tasks]
    means = {method: over_tasks(tasks, method, None, name) for method in methods}
    rows = []
    for method in methods:
        baseline = tasks[0].baseline if len(baselines) == 1 else None
        change = None
        if baseline is not None and method != baseline:
            change = over_tasks(tasks, method, baseline, name)
        mean = as_figure(means[method], name, change=as_figure(change, name, of_level=False))
        rows.append((method, *(column.get(method) for column in columns), mean))
    head = ("Method", *(task.task for task in tasks), "Mean of tasks")
    caption = f"{title_of(name)}{_arrow(name)}, method by task."
    return Sheet(f"tasks-{slug_of(title_of(name))}", caption, head, tuple(rows), HOW_TO_READ)


def over_tasks(
    tasks: Sequence[TaskRuns], method: str, minus: str | None, name: str
) -> Combined | None:
    """The mean of tasks, over the seeds that all of them have; None where a task has no such run.

    Args:
        tasks: each measured on its own texts, which are resampled independently.
        method: whose figure.
        minus: the method it is the difference to, or None.
        name: the figure.
    """
    wanted = [method] if minus is None else [method, minus]
    if any(one not in task.members for task in tasks for one in wanted):
        return None
    seeds = set.intersection(*(set(task.members[one]) for task in tasks for one in wanted))
    if not seeds:
        return None
    values, resampled = [], []
    for seed in sorted(seeds):
        of_tasks: list[tuple[float, Floats]] = []
        for place, task in enumerate(tasks):
            runs = [task.members[one][seed] for one in wanted]
            value = runs[0].values[name] - (runs[1].values[name] if minus else 0.0)
            drawn_R = runs[0].resampled[name] - (runs[1].resampled[name] if minus else 0.0)
            # Tasks of as many texts share the generator's draws: another order undoes that.
            of_tasks.append((value, np.random.default_rng(place).permutation(drawn_R)))
        values.append(fmean(value for value, _ in of_tasks))
        resampled.append(np.mean([drawn_R for _, drawn_R in of_tasks], axis=0))
    return combine(values, resampled)
