"""How far a set is from the run's clean one, and whether its texts are told from it."""

from __future__ import annotations

from collections.abc import Mapping

from calib_ebm.report.blocks import Block, Cell, Paragraph, Section, Table
from calib_ebm.report.files import RunFolder
from calib_ebm.report.numbers import NOTHING, StoredEstimate
from calib_ebm.report.tables import COLUMNS, metric_rows

TITLE = "Against the clean set"
SCORES = {
    "energy": "energy",
    "max_prob": "maximum probability",
    "entropy": "entropy",
    "margin": "margin of the two largest probabilities",
}


def section(run: RunFolder) -> Section | None:
    """Differences from the clean set and figures of separation; None for a set that has neither."""
    blocks = (*_differences(run.metrics), *_apart(run.metrics))
    return Section("stress", TITLE, blocks) if blocks else None


def _differences(metrics: Mapping[str, float]) -> tuple[Block, ...]:
    columns = {f"difference/{prefix}": head for prefix, head in COLUMNS.items()}
    rows = metric_rows(metrics, columns)
    if not rows:
        return ()
    written = tuple(
        (Cell(row.metric.label), *(_value(cell, row.metric.unit) for cell in row.cells))
        for row in rows
    )
    what = (
        "Each figure of this set less that of the run's clean test half, which was scored and "
        "calibrated the same way. Where the interval leaves out zero, the two differ by more than "
        "the chance of which texts were drawn."
    )
    caption = "Difference [95% interval], in the figure's unit or in percentage points."
    head = ("Metric", *columns.values())
    return (Paragraph(what), Table(caption, head, written, narrow="fold"))


def _apart(metrics: Mapping[str, float]) -> tuple[Block, ...]:
    rows = []
    for score, name in SCORES.items():
        auroc = StoredEstimate.of(metrics, f"ood/auroc/{score}")
        fpr = StoredEstimate.of(metrics, f"ood/fpr95/{score}")
        if auroc is not None:
            rows.append((Cell(name), _value(auroc, ""), _value(fpr, "%")))
    if not rows:
        return ()
    what = (
        "How well one number a text tells the clean texts from these. AUROC: the chance that a "
        "clean text looks more like the task than one of these, half for a coin. FPR: how many of "
        "these pass where 95% of the clean ones do, the fewer the better. The notes below say how "
        "many texts there are of each."
    )
    caption = "Estimate [95% interval], by the probabilities before calibration."
    head = ("By", "AUROC", "FPR at 95% TPR")
    return (Paragraph(what), Table(caption, head, tuple(rows), narrow="fold"))


def _value(estimate: StoredEstimate | None, unit: str) -> Cell:
    if estimate is None:
        return Cell(NOTHING)
    return Cell(StoredEstimate(estimate.value).text(unit), estimate.interval(unit))
