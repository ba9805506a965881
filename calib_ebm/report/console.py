"""The table of metrics for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from calib_ebm.report.files import RunFolder, read_run
from calib_ebm.report.numbers import NOTHING, StoredEstimate
from calib_ebm.report.sections.headline import kicker
from calib_ebm.report.stress import StressRow
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


SHOWN = (
    ("test/cls/acc", "Accuracy", "%"),
    ("test/cal/ece", "ECE, top-label", "%"),
    ("test_calibrated/cal/ece", "ECE, top-label, calibrated", "%"),
    ("test_calibrated/nll", "NLL, calibrated, in nats", "nats"),
    ("test_calibrated/confidence", "Mean confidence, calibrated", "%"),
    ("energy/data", "Mean energy, in nats", "nats"),
    ("ood/auroc/energy", "AUROC in against out, by energy", ""),
    ("ood/auroc/max_prob", "AUROC in against out, by maximum probability", ""),
    ("ood/fpr95/energy", "FPR at 95% TPR, by energy", "%"),
    ("ood/fpr95/max_prob", "FPR at 95% TPR, by maximum probability", "%"),
)
"""Of the figures of a stress table, those that a terminal shows; the file holds all."""


def stress_tables(rows: Sequence[StressRow]) -> tuple[Table, ...]:
    """One table a figure: each set's value, and how far it is from the clean set's."""
    tables = []
    for metric, title, unit in SHOWN:
        chosen = [row for row in rows if row.metric == metric]
        if not chosen:
            continue
        apart = any(row.difference is not None for row in chosen)
        table = Table(title=Text(title), box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
        for head in ("Set", "Texts", "value [95% interval]", "minus clean")[: 3 + apart]:
            table.add_column(head, justify="left" if head == "Set" else "right")
        for row in chosen:
            value = StoredEstimate(row.value, row.low, row.high).text(unit)
            cells = [row.set, f"{row.n:,}", value]
            if apart:
                cells.append(_difference(row, unit))
            table.add_row(*(Text(cell) for cell in cells))
        tables.append(table)
    return tuple(tables)


def _difference(row: StressRow, unit: str) -> str:
    if row.difference is None:
        return NOTHING
    return StoredEstimate(row.difference, row.difference_low, row.difference_high).text(unit)
