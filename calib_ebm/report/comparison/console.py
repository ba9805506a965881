"""The comparison for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from calib_ebm.report.comparison.differences import mean_of
from calib_ebm.report.comparison.members import Member, TaskRuns
from calib_ebm.report.comparison.results import AFTER, BEFORE, as_figure, floor_of
from calib_ebm.report.numbers import count, percent

COLUMNS = {
    "Accuracy": f"{BEFORE}/cls/acc",
    "ECE": f"{BEFORE}/cal/ece",
    "ECE after": f"{AFTER}/cal/ece",
    "NLL": f"{BEFORE}/nll",
}


def task_table(task: TaskRuns) -> Table:
    """The methods of one task; printing it is the caller's."""
    # `Text`, because rich reads square brackets in a plain string as its own markup.
    title = Text(f"{task.task}, {task.texts:,} texts")
    caption = Text(
        "mean over seeds, with its 95% interval below; after: after calibration;\n"
        "floor: what perfect calibration would show on as many texts"
    )
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Method", min_width=17, overflow="fold")
    for head in COLUMNS:
        table.add_column(head, justify="right", no_wrap=True)
    for method, runs in task.members.items():
        cells = (_cell(runs, name) for name in COLUMNS.values())
        name = Text(f"{method}\n{count(len(runs), 'seed')}")
        table.add_row(name, *(Text(cell) for cell in cells))
    return table


def _cell(runs: Mapping[int, Member], name: str) -> str:
    """A mean, its interval and the floor under it, a line each."""
    figure = as_figure(mean_of(runs, name), name)
    if figure is None:
        return ""
    floor, _ = floor_of(runs.values(), name)
    under = () if floor is None else (f"floor {percent(floor)}",)
    return "\n".join((figure.text, figure.interval, *under))
