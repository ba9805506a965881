"""Binned sums: all that an expected calibration error needs to know of any number of predictions.

A prediction is a probability and an outcome (0 or 1, or an exact probability where that is known).
Sorted by probability into M bins, three sums per bin suffice: how many, their probabilities, their
outcomes. Sums add up over batches and processes, so everything built from them is exact however
the texts are cut up.

The edge rule, for every figure here: bin m of M equal ones is ((m-1)/M, m/M], and 0 falls in the
first. So p = 1 is in the last bin, and p = .15 of 20 bins in (.10, .15]. An edge is m/M as the
probabilities' own type writes it: .15 read in float32 is above .15 in float64, and must not change
its bin for that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BinnedSums(NamedTuple):
    """Per group g (a class, or just one) and bin m, in float64."""

    count_GM: Tensor
    confidence_GM: Tensor
    """Sum of the probabilities."""
    outcome_GM: Tensor
    """Sum of what came true."""


def equal_width_edges(bins: int, like: Tensor) -> Tensor:
    """The M + 1 edges 0, 1/M ... 1 on the device and in the type of `like`.

    >>> equal_width_edges(4, torch.zeros(1))
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    # A quotient, not linspace: that one gives .15000000000000002 for 3/20.
    edges_M1 = torch.arange(bins + 1, dtype=torch.float64, device=like.device) / bins
    return edges_M1.to(like.dtype)


def bin_index(probs: Tensor, edges_M1: Tensor) -> Tensor:
    """The bin (lo, hi] of each probability, of any shape; 0 is in the first, 1 in the last.

    >>> bin_index(torch.tensor([0.0, 0.25, 0.26, 1.0]), equal_width_edges(4, torch.zeros(1)))
    tensor([0, 0, 1, 3])
    """
    return torch.searchsorted(edges_M1[1:-1].contiguous(), probs.contiguous())


def binned_sums(probs_NG: Tensor, outcomes_NG: Tensor, edges_M1: Tensor) -> BinnedSums:
    """Sum N predictions in each of G columns into that column's own bins.

    Args:
        probs_NG: predicted probabilities.
        outcomes_NG: what came true of each, boolean or a number from 0 to 1.
        edges_M1: increasing edges, in the type of `probs_NG`.
    """
    groups, bins = probs_NG.shape[1], edges_M1.numel() - 1
    first_cell_G = bins * torch.arange(groups, device=probs_NG.device)
    cell = (bin_index(probs_NG, edges_M1) + first_cell_G).reshape(-1)

    def total(values_NG: Tensor) -> Tensor:
        sums = torch.zeros(groups * bins, dtype=torch.float64, device=probs_NG.device)
        # index_add_, since scatter_add_ and weighted bincount have no reproducible form on CUDA.
        return sums.index_add_(0, cell, values_NG.reshape(-1).double()).view(groups, bins)

    return BinnedSums(total(torch.ones_like(probs_NG)), total(probs_NG), total(outcomes_NG))


def mean_gap(sums: BinnedSums) -> Tensor:
    """Sum over bins of count/N |frequency - mean probability|, then the mean over groups: a scalar.

    The count cancels, which also takes care of empty bins. No prediction at all gives NaN.
    """
    gap_GM = (sums.confidence_GM - sums.outcome_GM).abs()
    return (gap_GM.sum(dim=1) / sums.count_GM.sum(dim=1)).mean()
