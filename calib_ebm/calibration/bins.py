"""Binned sums: all that an expected calibration error needs to know of any number of predictions.

A prediction is a probability and an outcome (0 or 1, or an exact probability where that is known).
Sorted by probability into M bins, three sums per bin suffice: how many, their probabilities, their
outcomes. Sums add up over batches and processes, so everything built from them is exact however
the texts are cut up.

The edge rule, for every figure here: bin m of M equal ones is ((m-1)/M, m/M], and 0 falls in the
first. So p = 1 is in the last bin, and p = .15 of 20 bins in (.10, .15]. An edge is m/M as the
probabilities' own type writes it: .15 read in float32 is above .15 in float64, and must not change
its bin for that.

Bins of equal mass have their edges at the probabilities themselves: sorted and cut into M runs as
equal as can be (the first N mod M have one more), each run ends at its largest. Equal
probabilities are never parted, so that the order of the texts has no say; a bin may then be larger
than its share and the next one empty.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Norm = Literal["l1", "l2", "max"]
"""How bins' gaps become one figure: their mean, the root of their mean square, the largest."""
Binning = Literal["width", "mass"]
"""Bins of equal width, or of as many predictions each."""


class BinnedSums(NamedTuple):
    """Per group g (a class, or just one) and bin m, in float64; leading axes are carried along."""

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


def mass_ranks(count: int, bins: int) -> Tensor:
    """At which place of N sorted predictions each of the M bins ends, the places from 1.

    >>> mass_ranks(10, 4)
    tensor([ 3,  6,  8, 10])
    """
    bin_M = torch.arange(1, bins + 1)
    return bin_M * (count // bins) + bin_M.clamp(max=count % bins)


def equal_mass_edges(probs_NG: Tensor, bins: int) -> Tensor:
    """Edges of bins with as many predictions each, G by M + 1; 0 and 1 at the ends.

    >>> equal_mass_edges(torch.tensor([[0.1], [0.2], [0.4], [0.9]]), 2)
    tensor([[0.0000, 0.2000, 1.0000]])
    """
    rank_M = mass_ranks(len(probs_NG), bins).to(probs_NG.device)
    sorted_NG = probs_NG.sort(dim=0).values
    edges_GM = sorted_NG[rank_M - 1].T.clone()
    edges_GM[:, -1] = 1
    return torch.cat([torch.zeros_like(edges_GM[:, :1]), edges_GM], dim=1)


def edges_of(probs_NG: Tensor, bins: int, binning: Binning) -> Tensor:
    """The edges of one binning: M + 1 for all groups, or G by M + 1."""
    if binning == "mass":
        return equal_mass_edges(probs_NG, bins)
    return equal_width_edges(bins, probs_NG)


def binned_sums(probs_NG: Tensor, outcomes_NG: Tensor, edges: Tensor) -> BinnedSums:
    """Sum N predictions in each of G columns into that column's own bins.

    Args:
        probs_NG: predicted probabilities.
        outcomes_NG: what came true of each, boolean or a number from 0 to 1.
        edges: increasing, in the type of `probs_NG`; M + 1 for all columns or G by M + 1.
    """
    cell_NG = cell_index(probs_NG, edges)
    groups, bins = probs_NG.shape[1], edges.shape[-1] - 1

    def total(values_NG: Tensor) -> Tensor:
        return cell_totals(values_NG, cell_NG, groups * bins).view(groups, bins)

    return BinnedSums(total(torch.ones_like(probs_NG)), total(probs_NG), total(outcomes_NG))


def cell_index(probs_NG: Tensor, edges: Tensor) -> Tensor:
    """The bin of each prediction, counted on over the groups: m + M g."""
    groups, bins = probs_NG.shape[1], edges.shape[-1] - 1
    if edges.ndim == 1:
        bin_NG = bin_index(probs_NG, edges)
    else:
        inner_GM = edges[:, 1:-1].contiguous()
        bin_NG = torch.searchsorted(inner_GM, probs_NG.T.contiguous()).T
    return bin_NG + bins * torch.arange(groups, device=probs_NG.device)


def cell_totals(values: Tensor, cell: Tensor, cells: int) -> Tensor:
    """Sum values into their cells, in float64."""
    sums = torch.zeros(cells, dtype=torch.float64, device=values.device)
    # index_add_, since scatter_add_ and weighted bincount have no reproducible form on CUDA.
    return sums.index_add_(0, cell.reshape(-1), values.reshape(-1).double())


def mean_gap(sums: BinnedSums) -> Tensor:
    """Sum over bins of count/N |frequency - mean probability|, then the mean over groups.

    The count cancels, which also takes care of empty bins. No prediction at all gives NaN.
    """
    gap_GM = (sums.confidence_GM - sums.outcome_GM).abs()
    return (gap_GM.sum(dim=-1) / sums.count_GM.sum(dim=-1)).mean(dim=-1)


def gap_norm(sums: BinnedSums, norm: Norm) -> Tensor:
    """The gaps of all bins as one figure; over groups the same norm as over bins.

    l1 is `mean_gap`. l2 is the root of the mean over groups of sum_m count/N gap_m^2. max is the
    largest gap of any bin that is not empty, be it of a single text.
    """
    if norm == "l1":
        return mean_gap(sums)
    gap_GM = (sums.confidence_GM - sums.outcome_GM).abs()
    filled_GM = sums.count_GM.clamp(min=1)
    if norm == "max":
        largest = (gap_GM / filled_GM).amax(dim=(-2, -1))
        return torch.where(sums.count_GM.sum(dim=(-2, -1)) > 0, largest, torch.nan)
    square_G = (gap_GM.square() / filled_GM).sum(dim=-1) / sums.count_GM.sum(dim=-1)
    return square_G.mean(dim=-1).sqrt()


def debiased_l2(sums: BinnedSums) -> Tensor:
    """The l2 norm without what the labels' chance adds to each squared gap.

    A bin of n texts with frequency f adds f (1 - f) / (n - 1) on average, which is subtracted; bins
    of one text say nothing and count zero. Where more is subtracted than there is, a group's square
    is zero, as in the authors' code. Kumar, Liang and Ma, NeurIPS 2019, section 4.
    """
    count_GM, frequency_GM = sums.count_GM, sums.outcome_GM / sums.count_GM.clamp(min=1)
    gap_GM = (sums.confidence_GM - sums.outcome_GM) / count_GM.clamp(min=1)
    chance_GM = frequency_GM * (1 - frequency_GM) / (count_GM - 1).clamp(min=1)
    square_GM = torch.where(count_GM > 1, count_GM * (gap_GM.square() - chance_GM), 0.0)
    square_G = (square_GM.sum(dim=-1) / count_GM.sum(dim=-1)).clamp(min=0)
    return square_G.mean(dim=-1).sqrt()
