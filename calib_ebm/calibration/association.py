"""Rank correlation of two quantities of the same texts, with its interval.

Spearman's rho: Pearson's correlation of the ranks, ties given their mean rank. The interval is the
percentile one over resamples of the texts, ranked anew in each: no normal theory, for one of the
two may be as coarse as right or wrong.

Spearman, "The proof and measurement of association between two things", Am. J. Psychol. 15 (1904).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calib_ebm.calibration.intervals import LEVEL, Estimate
from calib_ebm.errors import InputError

FEWEST = 3
"""Texts: the ranks of two always agree or always disagree."""


def ranks(value_N: Tensor) -> Tensor:
    """Ranks from 1, ties given the mean of the ranks that they share.

    >>> ranks(torch.tensor([10.0, 20.0, 10.0, 5.0]))
    tensor([2.5000, 4.0000, 2.5000, 1.0000], dtype=torch.float64)
    """
    _, group_N, count_G = value_N.unique(return_inverse=True, return_counts=True)
    last_G = count_G.cumsum(dim=0).double()
    return (last_G - (count_G.double() - 1) / 2)[group_N]


def spearman(x_N: Tensor, y_N: Tensor) -> float:
    """Rank correlation from -1 to 1; NaN where one of the two is the same for all texts."""
    return _correlation(ranks(x_N), ranks(y_N))


def rank_correlation(
    x_N: Tensor, y_N: Tensor, *, resamples: int = 1000, seed: int = 0
) -> Estimate | None:
    """Rank correlation with its 95% interval; None where it is not defined.

    Args:
        x_N: a number for each of N texts.
        y_N: another, of the same texts in the same order.
        resamples: of the texts.
        seed: of a generator of its own.

    Raises:
        InputError: lengths differ, or a value is not finite.
    """
    x_N, y_N = x_N.detach().cpu().double(), y_N.detach().cpu().double()
    if x_N.shape != y_N.shape or x_N.ndim != 1:
        raise InputError(
            f"{tuple(x_N.shape)} values against {tuple(y_N.shape)}.",
            "two numbers for each text",
            "Join the two by the texts' ids.",
        )
    if not bool((x_N.isfinite() & y_N.isfinite()).all()):
        raise InputError(
            "A value to be ranked is not finite.", "numbers", "Leave out those texts, and say so."
        )
    value = spearman(x_N, y_N) if len(x_N) >= FEWEST else math.nan
    if not math.isfinite(value):
        return None
    drawn_R = rank_draws(x_N, y_N, resamples=resamples, seed=seed)
    drawn_R = drawn_R[drawn_R.isfinite()]
    if not len(drawn_R):
        return None
    low = drawn_R.quantile((1 - LEVEL) / 2).item()
    high = drawn_R.quantile((1 + LEVEL) / 2).item()
    return Estimate(value, min(low, value), max(high, value))


def rank_draws(x_N: Tensor, y_N: Tensor, *, resamples: int, seed: int) -> Tensor:
    """Rank correlation on each of R resamples of the texts, float64.

    It is NaN where a resample holds one value only. Equal seeds and numbers of texts draw the same
    resamples.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(resamples, dtype=torch.float64)
    for at in range(resamples):
        rows = torch.randint(len(x_N), (len(x_N),), generator=generator)
        drawn[at] = spearman(x_N[rows], y_N[rows])
    return drawn


def _correlation(x_N: Tensor, y_N: Tensor) -> float:
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    scale = x_N.norm() * y_N.norm()
    return (x_N @ y_N / scale).clamp(-1, 1).item() if scale > 0 else math.nan
