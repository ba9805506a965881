"""The table of metrics."""

from __future__ import annotations

from collections.abc import Mapping

from calib_ebm.report.blocks import Absent, Block, Cell, Paragraph, Section, Table
from calib_ebm.report.files import RunFolder
from calib_ebm.report.numbers import NOTHING, StoredEstimate, count
from calib_ebm.report.tables import COLUMNS, MetricRow, floor_texts, metric_rows

_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


def section(run: RunFolder) -> Section:
    """Every metric before and after calibration, each with its interval."""
    return Section("measured", "What was measured", _blocks(run))


def _blocks(run: RunFolder) -> tuple[Block, ...]:
    rows = metric_rows(run.metrics)
    if not rows:
        return (Absent("metrics.json of this run holds no test metrics."),)
    written = tuple(_row(row, run.metrics) for row in rows)
    fit, test = (run.predictions.splits.count(half) for half in ("fit", "test"))
    caption = (
        "Estimate [95% interval]. ↑ higher is better, ↓ lower is better. ECE: expected calibration "
        "error. Floor: what a perfectly calibrated model with the same probabilities shows on as "
        "many texts; p: how often it shows as much as was measured."
    )
    halves = _how_it_was_cut(run, fit, test)
    table = Table(caption, ("Metric", *COLUMNS.values()), written, narrow="fold")
    return (Paragraph(halves), table, *_further(run.metrics))


def _further(metrics: Mapping[str, float]) -> tuple[Block, ...]:
    """The second table; runs of an earlier version have none."""
    rows = metric_rows(metrics, further=True)
    if not rows:
        return ()
    caption = (
        "Further figures. Calibration errors with other bins or none: all have floors, so a figure "
        "is evidence only beside its own. Brier score: reliability less resolution plus "
        "uncertainty, but for what differs inside the bins. AURC: area under the risk-coverage "
        "curve, which is about ranking texts by confidence, not about calibration."
    )
    written = tuple(_row(row, metrics) for row in rows)
    return (Table(caption, ("Metric", *COLUMNS.values()), written, narrow="fold"),)


def _how_it_was_cut(run: RunFolder, fit: int, test: int) -> str:
    """What was fitted on which texts, and what is reported."""
    calibrator = run.run.calibrator
    done = f"after {calibrator.words}" if calibrator.name != "none" else "as it is, for comparison"
    fitted = f"Calibrated: {done}."
    unlabelled = ""
    if not run.predictions.labelled:
        unlabelled = (
            " These texts have no labels: whether a prediction is right, and so every calibration "
            "error, cannot be said; only figures that need no labels are shown."
        )
    if run.predictions.folds_N is not None:
        folds = len({*run.predictions.folds_N.tolist()})
        return (
            f"All {count(test, 'held-out text')} are reported, each of {folds} folds after a "
            f"calibrator fitted on the other folds. {fitted}"
        )
    if not fit:
        reported = f"Everything reported here is from {count(test, 'text')}"
        return f"{reported}; nothing was fitted on held-out texts.{unlabelled}"
    return (
        f"The calibrator was fitted on {count(fit, 'text')}, and everything reported here is from "
        f"{count(test, 'other text')}. {fitted}{unlabelled}"
    )


def _row(row: MetricRow, metrics: Mapping[str, float]) -> tuple[Cell, ...]:
    floors = floor_texts(metrics, row.metric.name)
    cells = (
        _value(cell, row.metric.unit, floor) for cell, floor in zip(row.cells, floors, strict=True)
    )
    return (_name(row), *cells)


def _name(row: MetricRow) -> Cell:
    label = f"{row.metric.label} {_ARROWS[row.metric.better]}".rstrip()
    unit = f"{row.metric.unit}; " if row.metric.unit == "nats" else ""
    return Cell(label, unit + row.metric.meaning)


def _value(estimate: StoredEstimate | None, unit: str, floor: str) -> Cell:
    if estimate is None:
        return Cell(NOTHING)
    note = f"floor {floor}" if floor else ""
    return Cell(StoredEstimate(estimate.value).text(unit), estimate.interval(unit), note)
