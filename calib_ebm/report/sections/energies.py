"""Energies of held-out texts against those of held-out noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib_ebm.report import diagrams
from calib_ebm.report.blocks import Absent, Block, Facts, Panel, Panels, Paragraph, Section
from calib_ebm.report.columns import Floats
from calib_ebm.report.files import Energies, RunFolder
from calib_ebm.report.numbers import count, decimals
from calib_ebm.report.sections import truth
from calib_ebm.report.tables import diagnostics

TITLE = "Energies of data and noise"


def section(run: RunFolder) -> Section:
    """The two histograms, or why there are none."""
    return Section("energies", TITLE, _blocks(run))


def _blocks(run: RunFolder) -> tuple[Block, ...]:
    if run.run.energy == "none":
        why = "This run is plain fine-tuning (energy=none): it has no energy to show."
        return (Absent(why),)
    facts = tuple((name, f"{value} ({note})") for name, value, note in diagnostics(run.metrics))
    known = Facts(facts) if facts else None
    if run.energies is None or not (len(run.energies.data_N) or len(run.energies.noise_N)):
        why = "This run has no energies.parquet, so the energies cannot be drawn."
        return (Absent(why), known) if known else (Absent(why),)
    how_to_read = (
        "Low energy: looks like the task's texts. The further apart the two are, the better the "
        "model tells real texts from what the noise model writes. None of these was trained on."
    )
    panels = (_panel(run.energies), *truth.energy_panels(run))
    return (Paragraph(how_to_read), Panels(panels, aside=known))


def _panel(energies: Energies) -> Panel:
    samples: dict[str, Floats] = {"data": energies.data_N, "noise": energies.noise_N}
    limits = diagrams.robust_limits(list(samples.values()))
    caption = " ".join(
        (
            f"{count(len(energies.data_N), 'text')} of data, "
            f"{count(len(energies.noise_N), 'text')} of noise; dashed: the medians, "
            f"{_median(energies.data_N)} and {_median(energies.noise_N)}.",
            _outside(list(samples.values()), limits),
        )
    ).rstrip()
    drawing = diagrams.histograms(
        samples, limits, "energies", f"Histograms of energy, data against noise. {caption}"
    )
    return Panel("Held-out texts against held-out noise", drawing, caption)


def _median(sample: Floats) -> str:
    finite = sample[np.isfinite(sample)]
    return decimals(float(np.median(finite))) if len(finite) else "unknown"


def _outside(samples: Sequence[Floats], limits: tuple[float, float]) -> str:
    values = np.concatenate(samples)
    outside = int((~((values >= limits[0]) & (values <= limits[1]))).sum())
    return f"{count(outside, 'text')} outside the drawn range." if outside else ""
