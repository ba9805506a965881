"""The training curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib_ebm.report import diagrams
from calib_ebm.report.blocks import Absent, Block, Panel, Panels, Section
from calib_ebm.report.columns import Floats
from calib_ebm.report.files import History, RunFolder
from calib_ebm.report.numbers import decimals, percent

TITLE = "How training went"
STEADY = 6
"""Of as many values the mean is told: single batches are too uneven to say how training went."""


@dataclass(frozen=True)
class Curve:
    """A column of history.csv that is drawn."""

    column: str
    title: str
    meaning: str
    as_percent: bool = False
    from_zero: bool = False


CURVES = (
    Curve("loss/ce", "Cross-entropy", "In nats, on training batches."),
    Curve("loss/label", "Loss of the labels", "What is minimised for them, on training batches."),
    Curve("loss/poscal", "Distance to the table", "Of PosCal, on training batches."),
    Curve("loss/mlm", "Masked-LM loss", "In nats, on training batches."),
    Curve("loss/tie", "Distance to the pretrained", "Mean square, of representations."),
    Curve("loss/nce", "Noise-contrastive loss", "In nats, on training batches and their noise."),
    Curve(
        "loss/gate",
        "Gate of the noise",
        "Share of its weight that the noise has: it waits for the labels.",
        True,
        True,
    ),
    Curve("nce/accuracy", "Data told from noise", "On training batches and their noise.", True),
    Curve("val/cls/acc", "Accuracy", "On held-out texts.", True),
    Curve("val/cal/ece", "Top-label ECE", "On held-out texts, before calibration.", True, True),
)


def section(run: RunFolder) -> Section:
    """What was logged, over steps."""
    return Section("training", TITLE, _blocks(run.history))


def _blocks(history: History) -> tuple[Block, ...]:
    step = history.get("step")
    if step is None or not len(step):
        return (Absent("This run has no history.csv, so there are no training curves."),)
    panels = tuple(
        _panel(curve, *points)
        for curve in CURVES
        if (points := logged(step, history.get(curve.column))) is not None
    )
    if not panels:
        return (Absent("history.csv of this run holds none of the curves that are drawn here."),)
    return (Panels(panels, width="small"),)


def logged(step: Floats, value: Floats | None) -> tuple[Floats, Floats] | None:
    """The finite values and their steps in ascending order; None if there are none."""
    if value is None:
        return None
    there = np.isfinite(step) & np.isfinite(value)
    if not there.any():
        return None
    order = np.argsort(step[there], kind="stable")
    return step[there][order], value[there][order]


def _panel(curve: Curve, step: Floats, value: Floats) -> Panel:
    write = percent if curve.as_percent else decimals
    if len(value) == 1:
        course = f"Logged once, at step {step[0]:.0f}: {write(float(value[0]))}."
    elif (tenth := len(value) // 10) >= STEADY:
        first, last = write(float(value[:tenth].mean())), write(float(value[-tenth:].mean()))
        course = f"On average {first} in the first tenth of the steps, {last} in the last."
    else:
        first, last = write(float(value[0])), write(float(value[-1]))
        course = f"From {first} at step {step[0]:.0f} to {last} at step {step[-1]:.0f}."
    slug = "curve-" + curve.column.replace("/", "-")
    drawing = diagrams.curve(
        step,
        value,
        slug,
        f"{curve.title} over steps. {course}",
        as_percent=curve.as_percent,
        from_zero=curve.from_zero,
    )
    return Panel(curve.title, drawing, f"{curve.meaning} {course}")
