"""Noise beside the texts that it was made from."""

from __future__ import annotations

from calib_ebm.report.blocks import Absent, Block, Cell, Paragraph, Section, Table
from calib_ebm.report.files import NoiseSample, RunFolder
from calib_ebm.report.numbers import NOTHING, count, decimals

TITLE = "What the noise looks like"
SHOWN = 12
PREFIXED = "The noise model was given the masked text and wrote the noise from it."
FREE = "The noise model wrote these without seeing a text of the task."
USEFUL = "Useful noise reads like the task's texts, and is not one of them."


def section(run: RunFolder) -> Section:
    """Samples in a table, or why there are none."""
    return Section("noise", TITLE, _blocks(run))


def _blocks(run: RunFolder) -> tuple[Block, ...]:
    samples = run.noise_samples
    if not samples:
        plain = "This run is plain fine-tuning (energy=none): it was trained without noise."
        lost = "This run has no noise_samples.jsonl, so no noise can be shown."
        return (Absent(plain if run.run.energy == "none" else lost),)
    shown = samples[:SHOWN]
    prefixed = any(sample.masked is not None for sample in shown)
    how = PREFIXED if prefixed else FREE
    caption = f"{len(shown)} of {count(len(samples), 'held-out sample')}."
    return (Paragraph(f"{how} {USEFUL}"), _table(shown, caption, prefixed))


def _table(samples: tuple[NoiseSample, ...], caption: str, prefixed: bool) -> Table:
    head = ("Text", "Masked", "Noise") if prefixed else ("Text", "Noise")
    rows = []
    for sample in samples:
        masked = (Cell(sample.masked or NOTHING),) if prefixed else ()
        energy = "" if sample.energy is None else f"energy {decimals(sample.energy)}"
        rows.append((Cell(sample.source), *masked, Cell(sample.noise, note=energy)))
    return Table(caption, head, tuple(rows), narrow="stack")
