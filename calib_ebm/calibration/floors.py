"""The floor of a calibration error: what a perfectly calibrated model would show on as many texts.

Finitely many labels never match their probabilities bin by bin, so no ECE is zero. If the model's
probabilities were exact, the labels would be draws from them: drawn anew many times, with the
probabilities left as they are, they give the ECE's null distribution. Its mean is the floor; an
ECE below its 95% point is no evidence of miscalibration.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.bins import bin_index, equal_width_edges
from calib_ebm.calibration.checks import check_bins, check_probabilities
from calib_ebm.calibration.resample import CHUNK
from calib_ebm.errors import InputError

TIE = 1e-12
"""Sums taken in another order differ by less; a real difference of two ECEs is larger."""


class NullECE(NamedTuple):
    """Mean and 95% point of an ECE's null distribution."""

    mean: float
    p95: float


def null_ece(probs_NC: Tensor, bins: int = 20, draws: int = 1000, seed: int = 0) -> NullECE:
    """The floor of the top-label ECE on these texts."""
    null_R = null_draws(probs_NC, bins=bins, draws=draws, seed=seed)["cal/ece"]
    return NullECE(null_R.mean().item(), null_R.quantile(0.95).item())


def p_value(null_R: Tensor, observed: float) -> float:
    """Chance of an ECE at least as large from a perfectly calibrated model, counting this one.

    >>> p_value(torch.tensor([0.01, 0.02, 0.03]), 0.02)    # (1 + 2) / (1 + 3)
    0.75
    """
    return (1 + int((null_R >= observed - TIE).sum())) / (1 + null_R.numel())


def null_draws(
    probs_NC: Tensor, *, bins: int = 20, draws: int = 1000, seed: int = 0
) -> dict[str, Tensor]:
    """Draw the labels anew from the probabilities; each draw's three ECEs, by name.

    Args:
        probs_NC: the model's probabilities of N texts.
        bins: of the ECEs.
        draws: how many times the labels are drawn.
        seed: of a generator of its own; the global one is left alone.

    Returns:
        float64 tensors of length `draws`.
    """
    check_probabilities(probs_NC)
    check_bins(bins)
    if draws < 1:
        raise InputError(f"draws is {draws}.", "a whole number from 1", "Leave it at 1,000.")
    probs_NC = probs_NC.cpu()
    bin_NC = bin_index(probs_NC, equal_width_edges(bins, probs_NC))
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, min(draws, CHUNK // max(probs_NC.numel(), bins * probs_NC.shape[1])))
    parts: list[dict[str, Tensor]] = []
    for start in range(0, draws, chunk):
        labels_NR = _draw_labels(probs_NC, min(chunk, draws - start), generator)
        parts.append(_eces(probs_NC, bin_NC, labels_NR, bins))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _draw_labels(probs_NC: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """R labels for each of N texts by inverting the cumulative distribution."""
    cumulative_NC = probs_NC.double().cumsum(dim=1)
    uniform_NR = torch.rand(len(probs_NC), draws, generator=generator, dtype=torch.float64)
    # A row may sum to .9999: without scaling, the last class would take what is missing.
    uniform_NR = uniform_NR * cumulative_NC[:, -1:]
    return torch.searchsorted(cumulative_NC[:, :-1].contiguous(), uniform_NR, right=True)


def _eces(probs_NC: Tensor, bin_NC: Tensor, labels_NR: Tensor, bins: int) -> dict[str, Tensor]:
    """The three ECEs of each column of labels. Outcomes are whole numbers: they are counted."""
    texts, classes = probs_NC.shape
    draws = labels_NR.shape[1]
    confidence_N, predicted_N = probs_NC.max(dim=1)
    bin_N1 = bin_NC.gather(1, predicted_N[:, None])
    label_bin_NR = bin_NC.gather(1, labels_NR)

    def gaps(cell: Tensor, probs: Tensor, hit_cell_NR: Tensor, cells: int) -> Tensor:
        """Sum over cells of |sum of probabilities - hits|; what is in cell `cells` is no hit."""
        sums = torch.zeros(cells, dtype=torch.float64)
        sums.index_add_(0, cell.reshape(-1), probs.reshape(-1).double())
        flat = hit_cell_NR + (cells + 1) * torch.arange(draws)
        hits = torch.bincount(flat.reshape(-1), minlength=draws * (cells + 1))
        return (sums - hits.view(draws, cells + 1)[:, :cells]).abs().sum(dim=1)

    top_NR = torch.where(labels_NR == predicted_N[:, None], bin_N1, bins)
    first_cell_C = bins * torch.arange(classes)
    class_NR = label_bin_NR + bins * labels_NR
    return {
        "cal/ece": gaps(bin_N1, confidence_N, top_NR, bins) / texts,
        "cal/ece_classwise": gaps(bin_NC + first_cell_C, probs_NC, class_NR, classes * bins)
        / (texts * classes),
        "cal/ece_pooled": gaps(bin_NC, probs_NC, label_bin_NR, bins) / (texts * classes),
    }
