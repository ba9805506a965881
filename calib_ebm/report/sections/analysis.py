"""What the energy of a text tells of the classifier: its doubt, and whether it is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib_ebm.calibration.association import rank_correlation
from calib_ebm.report import lines
from calib_ebm.report.blocks import (
    Block,
    Cell,
    Facts,
    Panel,
    Panels,
    Paragraph,
    Section,
    Table,
    row,
)
from calib_ebm.report.columns import Floats
from calib_ebm.report.diagrams import robust_limits
from calib_ebm.report.files import Predictions, RunFolder
from calib_ebm.report.numbers import StoredEstimate, count, decimals, percent
from calib_ebm.report.shares import share_text, wilson
from calib_ebm.report.texts import shortened

TITLE = "What the energy tells"
EXTREMES = 10
GROUPS = 10
MOST_DRAWN = 5_000_000
"""Texts ranked by all resamples together."""
HOW_TO_READ = (
    "Energy measures how little a text looks like the task's texts; entropy, in nats, how "
    "undecided the classifier is about it. Below: how the two go together, and whether texts of "
    "low energy are more often classified rightly."
)


@dataclass(frozen=True)
class Told:
    """Of each reported text with a finite energy: energy, entropy, and whether it was right."""

    ids: tuple[str, ...]
    energy_N: Floats
    entropy_N: Floats
    right_N: NDArray[np.bool_]
    label_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64]
    confidence_N: Floats


def told_by(test: Predictions) -> Told | None:
    """What is drawn, from the stored table; None without energies."""
    if test.energy_N is None or not np.isfinite(test.energy_N).any():
        return None
    kept = np.isfinite(test.energy_N)
    probs_NC = test.probs_NC()[torch.from_numpy(kept)]
    confidence_N, predicted_N = probs_NC.max(dim=1)
    labels_N = test.labels_N[kept]
    return Told(
        ids=tuple(one for one, keep in zip(test.ids, kept, strict=True) if keep),
        energy_N=test.energy_N[kept],
        entropy_N=torch.special.entr(probs_NC).sum(dim=1).numpy(),
        right_N=predicted_N.numpy() == labels_N,
        label_N=labels_N,
        predicted_N=predicted_N.numpy(),
        confidence_N=confidence_N.numpy(),
    )


def resamples_for(texts: int) -> int:
    """As many as are quick: a thousand for up to five thousand texts, and never below 200."""
    return max(200, min(1000, MOST_DRAWN // max(texts, 1)))


def associations(told: Told) -> dict[str, tuple[Tensor, Tensor]]:
    """What is correlated with the energy: name to the two quantities."""
    energy_N = torch.from_numpy(told.energy_N)
    return {
        "entropy": (energy_N, torch.from_numpy(told.entropy_N)),
        "being right": (energy_N, torch.from_numpy(told.right_N).double()),
    }


def section(run: RunFolder) -> Section | None:
    """Of one run; None where there is no energy."""
    told = told_by(run.predictions.of("test"))
    if told is None or not run.predictions.labelled:
        return None
    facts = []
    for name, (x_N, y_N) in associations(told).items():
        found = rank_correlation(x_N, y_N, resamples=resamples_for(len(x_N)))
        value = "not defined" if found is None else StoredEstimate(*found).text("")
        facts.append((f"Rank correlation of energy and {name}", value))
    blocks: tuple[Block, ...] = (
        Paragraph(HOW_TO_READ),
        Panels(panels(told, "run"), aside=Facts(tuple(facts))),
        *(extremes(told, run.texts, run.run.labels, end) for end in ("lowest", "highest")),
    )
    return Section("analysis", TITLE, blocks)


def panels(told: Told, slug: str, name: str = "") -> tuple[Panel, ...]:
    """Energy against entropy, and how often right by energy."""
    right = told.right_N
    groups = {
        "right": (told.energy_N[right], told.entropy_N[right]),
        "wrong": (told.energy_N[~right], told.entropy_N[~right]),
    }
    top = float(told.entropy_N.max()) if len(told.entropy_N) else 1.0
    about = f"{name}: " if name else ""
    caption = (
        f"{about}{count(len(right), 'text')}, right: {share_text(int(right.sum()), len(right))}."
    )
    scattered = lines.scatter(
        groups,
        f"entropy-{slug}",
        f"Entropy against energy. {caption}",
        axis_labels=("Energy", "Entropy of the classifier, nats"),
        limits=(robust_limits([told.energy_N]), (0.0, 1.05 * max(top, 1e-3))),
    )
    middle, share, low, high = by_energy(told)
    binned_caption = (
        f"{about}texts in {count(len(middle), 'group')} of equal size by energy; lines: 95% "
        "intervals (Wilson)."
    )
    binned = lines.binned(
        middle,
        share,
        low,
        high,
        f"right-{slug}",
        f"How often right, by energy. {binned_caption}",
        axis_labels=("Energy, median of the group", "Right"),
    )
    return (
        Panel("Entropy against energy", scattered, caption),
        Panel("How often right, by energy", binned, binned_caption),
    )


def by_energy(told: Told, groups: int = GROUPS) -> tuple[Floats, Floats, Floats, Floats]:
    """Median energy of each group of texts, share of right ones, and its Wilson interval."""
    order = np.argsort(told.energy_N, kind="stable")
    parts = [part for part in np.array_split(order, groups) if len(part)]
    sizes = np.asarray([len(part) for part in parts], dtype=np.float64)
    share = np.asarray([told.right_N[part].mean() for part in parts], dtype=np.float64)
    middle = np.asarray([np.median(told.energy_N[part]) for part in parts], dtype=np.float64)
    return (middle, share, *wilson(share, sizes))


def extremes(
    told: Told, texts: Mapping[str, str], labels: tuple[str, ...], end: str, of: str = ""
) -> Table:
    """The ten texts of lowest or of highest energy."""
    order = np.argsort(told.energy_N, kind="stable")
    chosen = order[:EXTREMES] if end == "lowest" else order[::-1][:EXTREMES]
    rows = []
    for at in chosen:
        known = texts.get(told.ids[at])
        said = f"{labels[told.predicted_N[at]]} ({percent(float(told.confidence_N[at]))})"
        verdict = "right" if told.right_N[at] else f"wrong, it is {labels[told.label_N[at]]}"
        text = told.ids[at] if known is None else shortened(known)
        energy = decimals(float(told.energy_N[at]))
        rows.append(row(Cell(text), Cell(energy), Cell(said, note=verdict)))
    caption = f"The {count(len(rows), 'text')} of {end} energy{f' ({of})' if of else ''}."
    if any(told.ids[at] not in texts for at in chosen):
        caption += " This run has no texts.parquet with all of them: ids stand in their place."
    return Table(
        caption, ("Text", "Energy", "Predicted"), tuple(rows), narrow="stack", wide_first=True
    )
