"""The tables of differences: each method against the baseline, on the same texts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from calib_ebm.report.comparison.differences import Combined, difference
from calib_ebm.report.comparison.members import STAGES, TaskRuns
from calib_ebm.report.comparison.results import as_figure, figures_of, title_of
from calib_ebm.report.comparison.sheets import Entry, Sheet

BEFORE, AFTER = STAGES
MENDED = ("cal/ece", "nll", "brier")
"""What a calibrator is for."""
DIFFERENCES = (
    *("Method", "Task", "Figure", "Difference", "Seeds", "Sure", "p", "Texts it would take"),
)


def differences_sheets(tasks: Sequence[TaskRuns]) -> tuple[Sheet, ...]:
    """Each method against the baseline: how far apart, and whether that is sure."""
    alike = list(_differences(tasks, lambda task: {name: name for name in figures_of(task)}))
    unlike = list(_differences(tasks, _as_trained_against_calibrated))
    sheets = []
    if alike:
        caption = (
            "Method less baseline on the same texts [95% interval]; shares in percentage points. "
            "Sure: the interval leaves out zero. Texts it would take: about as "
            "many reported texts as would bring the interval's end to zero if the difference "
            "stayed as it is; more seeds: no number of texts would."
        )
        sheets.append(Sheet("differences", caption, DIFFERENCES, tuple(alike)))
    if unlike:
        caption = (
            "Method as trained less baseline after calibration: what the method gives without the "
            "labels that a calibrator is fitted on, beside the baseline with them."
        )
        sheets.append(Sheet("without-labels", caption, DIFFERENCES, tuple(unlike)))
    return tuple(sheets)


def _as_trained_against_calibrated(task: TaskRuns) -> dict[str, str]:
    """Figures as trained, and those after calibration; none where no calibrator was fitted."""
    assert task.baseline is not None, "asked before"
    runs = task.members[task.baseline].values()
    pairs = {f"{BEFORE}/{name}": f"{AFTER}/{name}" for name in MENDED}
    known = {*figures_of(task)}
    return {
        before: after
        for before, after in pairs.items()
        if {before, after} <= known and any(r.values[before] != r.values[after] for r in runs)
    }


def _differences(
    tasks: Sequence[TaskRuns], pairs: Callable[[TaskRuns], Mapping[str, str]]
) -> Iterator[tuple[Entry, ...]]:
    for task in tasks:
        if task.baseline is None:
            continue
        base, figures = task.members[task.baseline], pairs(task)
        for method, runs in task.members.items():
            for name, other in figures.items() if method != task.baseline else ():
                found = difference(runs, base, name, other)
                if found is not None:
                    yield _difference_row(task, method, name, found)


def _difference_row(task: TaskRuns, method: str, name: str, found: Combined) -> tuple[Entry, ...]:
    needed = found.texts_needed(task.texts)
    if found.value == 0:
        takes: Entry = "no difference"
    else:
        takes = "more seeds" if needed is None else needed
    sure = "yes" if found.sure else "no"
    figure = as_figure(found, name, of_level=False)
    return (method, task.task, title_of(name), figure, found.seeds, sure, found.p_value, takes)
