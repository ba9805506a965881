"""The table of metrics for a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from calib_ebm.report.files import RunFolder, read_run
from calib_ebm.report.sections.headline import kicker
from calib_ebm.report.tables import COLUMNS, floor_texts, metric_rows


def summary_table(run: RunFolder | Path | str) -> Table:
    """The metrics of a finished run, before and after calibration; printing it is the caller's.

    Raises:
        InputError: see `read_run`.
    """
    if not isinstance(run, RunFolder):
        run = read_run(run)
    # `Text`, because rich reads square brackets in a plain string as its own markup.
    caption = Text(f"value [95% interval]; calibrated: {run.run.calibrator.words}")
    table = Table(title=Text(kicker(run)), caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Metric")
    for head in COLUMNS.values():
        table.add_column(head, justify="right")
    for row in metric_rows(run.metrics):
        label = f"{row.metric.label}, nats" if row.metric.unit == "nats" else row.metric.label
        table.add_row(Text(label), *(Text(cell) for cell in row.texts()))
        floors = floor_texts(run.metrics, row.metric.name)
        if any(floors):
            table.add_row(Text("  floor"), *(Text(cell) for cell in floors), style="dim")
    return table
