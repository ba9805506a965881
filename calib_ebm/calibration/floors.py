"""The floor of a calibration error: what a perfectly calibrated model would show on as many texts.

Finitely many labels never match their probabilities bin by bin, so no ECE is zero. If the model's
probabilities were exact, the labels would be draws from them: drawn anew many times, with the
probabilities left as they are, they give the ECE's null distribution. Its mean is the floor; an
ECE below its 95% point is no evidence of miscalibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.bins import bin_index, cell_totals, equal_width_edges
from calib_ebm.calibration.checks import check_bins, check_choice, check_probabilities
from calib_ebm.calibration.estimates import CALIBRATION_ERRORS
from calib_ebm.calibration.ordered import Ordered, group_confidences
from calib_ebm.calibration.resample import CHUNK
from calib_ebm.errors import InputError

WITH_FLOOR = (*CALIBRATION_ERRORS, "brier/reliability")
"""The estimates that a perfectly calibrated model does not bring to zero."""
TIE = 1e-12
"""Sums taken in another order differ by less; a real difference of two ECEs is larger."""


class NullECE(NamedTuple):
    """Mean and 95% point of a calibration error's null distribution."""

    mean: float
    p95: float


def null_ece(
    probs_NC: Tensor, bins: int = 20, draws: int = 1000, seed: int = 0, estimate: str = "cal/ece"
) -> NullECE:
    """The floor of one calibration error on these texts, by default of the top-label ECE."""
    null = null_draws(probs_NC, bins=bins, draws=draws, seed=seed, names=(estimate,))
    null_R = null[estimate]
    return NullECE(null_R.mean().item(), null_R.quantile(0.95).item())


def p_value(null_R: Tensor, observed: float) -> float:
    """Chance of an ECE at least as large from a perfectly calibrated model, counting this one.

    >>> p_value(torch.tensor([0.01, 0.02, 0.03]), 0.02)    # (1 + 2) / (1 + 3)
    0.75
    """
    return (1 + int((null_R >= observed - TIE).sum())) / (1 + null_R.numel())


def null_draws(
    probs_NC: Tensor,
    *,
    bins: int = 20,
    draws: int = 1000,
    seed: int = 0,
    names: Sequence[str] = WITH_FLOOR,
) -> dict[str, Tensor]:
    """Draw the labels anew from the probabilities; each draw's calibration errors, by name.

    Args:
        probs_NC: the model's probabilities of N texts.
        bins: of the ECEs.
        draws: how many times the labels are drawn.
        seed: of a generator of its own; the global one is left alone.
        names: of `WITH_FLOOR`, those to compute.

    Returns:
        float64 tensors of length `draws`.
    """
    check_probabilities(probs_NC)
    check_bins(bins)
    if draws < 1:
        raise InputError(f"draws is {draws}.", "a whole number from 1", "Leave it at 1,000.")
    for name in names:
        check_choice("The estimate with a floor", name, WITH_FLOOR)
    probs_NC = probs_NC.cpu()
    bin_NC = bin_index(probs_NC, equal_width_edges(bins, probs_NC))
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, min(draws, CHUNK // max(probs_NC.numel(), bins * probs_NC.shape[1])))
    parts: list[dict[str, Tensor]] = []
    for start in range(0, draws, chunk):
        labels_NR = _draw_labels(probs_NC, min(chunk, draws - start), generator)
        every = _calibration_errors(probs_NC, bin_NC, labels_NR, bins, names)
        parts.append({name: every[name] for name in names})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _draw_labels(probs_NC: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """R labels for each of N texts by inverting the cumulative distribution."""
    cumulative_NC = probs_NC.double().cumsum(dim=1)
    uniform_NR = torch.rand(len(probs_NC), draws, generator=generator, dtype=torch.float64)
    # A row may sum to .9999: without scaling, the last class would take what is missing.
    uniform_NR = uniform_NR * cumulative_NC[:, -1:]
    return torch.searchsorted(cumulative_NC[:, :-1].contiguous(), uniform_NR, right=True)


def _calibration_errors(
    probs_NC: Tensor, bin_NC: Tensor, labels_NR: Tensor, bins: int, names: Sequence[str]
) -> dict[str, Tensor]:
    """At least the named ones, for each column of labels."""
    columns = _columns(probs_NC, labels_NR)
    return _with_fixed_bins(probs_NC, bin_NC, labels_NR, bins) | {
        name: each.of_columns(columns, bins)
        for name, each in CALIBRATION_ERRORS.items()
        if each.of_columns is not None and name in names
    }


def _columns(probs_NC: Tensor, labels_NR: Tensor) -> Ordered:
    """How many predictions are right at each distinct confidence, for each column of labels."""
    predicted_N = probs_NC.argmax(dim=1)
    confidence_U, group_N, _ = group_confidences(probs_NC, predicted_N)
    right_RN = (labels_NR == predicted_N[:, None]).T.double()
    right_RU = right_RN.new_zeros(len(right_RN), len(confidence_U)).index_add_(1, group_N, right_RN)
    count_U = torch.bincount(group_N, minlength=len(confidence_U)).double()
    return Ordered(confidence_U, count_U.expand_as(right_RU), right_RU)


def _with_fixed_bins(
    probs_NC: Tensor, bin_NC: Tensor, labels_NR: Tensor, bins: int
) -> dict[str, Tensor]:
    """Those whose bins are the same for all draws. Outcomes are whole numbers: they are counted."""
    texts, classes = probs_NC.shape
    draws = labels_NR.shape[1]
    confidence_N, predicted_N = probs_NC.max(dim=1)
    bin_N1 = bin_NC.gather(1, predicted_N[:, None])
    label_bin_NR = bin_NC.gather(1, labels_NR)

    def gaps(cell: Tensor, probs: Tensor, hit_cell_NR: Tensor, cells: int) -> Tensor:
        """Per cell |sum of probabilities - hits|; what is in cell `cells` is no hit."""
        sums = cell_totals(probs, cell, cells)
        flat = hit_cell_NR + (cells + 1) * torch.arange(draws)
        hits = torch.bincount(flat.reshape(-1), minlength=draws * (cells + 1))
        return (sums - hits.view(draws, cells + 1)[:, :cells]).abs()

    top_NR = torch.where(labels_NR == predicted_N[:, None], bin_N1, bins)
    cell_NC = bin_NC + bins * torch.arange(classes)
    of_classes = gaps(cell_NC, probs_NC, label_bin_NR + bins * labels_NR, classes * bins)
    count = cell_totals(torch.ones_like(probs_NC), cell_NC, classes * bins).clamp(min=1)
    return {
        "cal/ece": gaps(bin_N1, confidence_N, top_NR, bins).sum(dim=1) / texts,
        "cal/ece_classwise": of_classes.sum(dim=1) / (texts * classes),
        "cal/ece_pooled": gaps(bin_NC, probs_NC, label_bin_NR, bins).sum(dim=1) / (texts * classes),
        "brier/reliability": (of_classes.square() / count).sum(dim=1) / texts,
    }
