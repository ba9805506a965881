"""Figures that need the order of all confidences: no bins, or bins that the data choose.

    ece_equal_mass   top-label ECE with as many texts per bin
    ece_sweep        the same, with the most bins that keep the frequencies rising; Roelofs et al.,
                     AISTATS 2022
    ks_error         the largest sum of gaps from the least confidence on; Gupta et al., ICLR 2021

All are functions of `Ordered`: for each distinct confidence, how many texts have it and how many
of these are right. Equal confidences are thus taken together and the order of the texts has no
say. R columns of counts go through at once: resamples in the bootstrap, draws of labels in the
floors. Memory grows with the texts: the order of all of them is what these are made from.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from calib_ebm.calibration.bins import BinnedSums, Norm, debiased_l2, gap_norm, mass_ranks
from calib_ebm.calibration.checks import check_bins, check_choice, check_predictions
from calib_ebm.calibration.errors import top_label_pairs


class Ordered(NamedTuple):
    """U distinct confidences, rising, and R columns of counts; every column sums to N texts."""

    confidence_U: Tensor
    count_RU: Tensor
    """Texts of this confidence, float64."""
    right_RU: Tensor
    """Those of them whose prediction is right."""

    @property
    def texts(self) -> int:
        """N."""
        return int(self.count_RU[0].sum())

    @property
    def gap_RU(self) -> Tensor:
        """Sum of confidence less right or wrong."""
        return self.confidence_U * self.count_RU - self.right_RU


def group_confidences(probs_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct confidences (float64), which of them each text has, and 1 where it is right."""
    confidence_N1, right_N1 = top_label_pairs(probs_NC, labels_N)
    confidence_U, group_N = confidence_N1[:, 0].unique(sorted=True, return_inverse=True)
    return confidence_U.double(), group_N, right_N1[:, 0].double()


def ordered(probs_NC: Tensor, labels_N: Tensor) -> Ordered:
    """One column: the set as it is."""
    confidence_U, group_N, right_N = group_confidences(probs_NC, labels_N)
    zeros_U = torch.zeros_like(confidence_U)
    count_U = zeros_U.index_add(0, group_N, torch.ones_like(right_N))
    return Ordered(confidence_U, count_U[None], zeros_U.index_add(0, group_N, right_N)[None])


# --- The figures ---


def ece_equal_mass(
    probs_BC: Tensor, labels_B: Tensor, bins: int = 20, *, norm: Norm = "l1"
) -> Tensor:
    """Top-label ECE with bins of equal mass; `ece_top_label(binning="mass")` by another road."""
    check_predictions(probs_BC, labels_B)
    check_bins(bins)
    check_choice("norm", norm, get_args(Norm))
    return equal_mass_each(ordered(probs_BC, labels_B), bins, norm)[0]


def ece_sweep(probs_BC: Tensor, labels_B: Tensor, *, norm: Norm = "l1") -> Tensor:
    """Top-label ECE with the largest number of equal-mass bins up to which frequencies rise.

    Bins are added one at a time from one on, until for the first time a bin is right less often
    than the one below; the number before that is taken. Empty bins are passed over.

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> ece_sweep(probs, torch.tensor([0, 1, 0, 1]))     # 2 bins: |.85 - .5|, |.65 - .5|
    tensor(0.2500, dtype=torch.float64)
    """
    check_predictions(probs_BC, labels_B)
    check_choice("norm", norm, get_args(Norm))
    return sweep_each(ordered(probs_BC, labels_B), norm)[0]


def ks_error(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Largest |sum of (confidence - right)| / N over texts of at most some confidence.

    Never above `ece_top_label` of any bins, and without any itself.
    """
    check_predictions(probs_BC, labels_B)
    return ks_each(ordered(probs_BC, labels_B))[0]


# --- The same for R columns, unchecked ---


def equal_mass_each(columns: Ordered, bins: int, norm: Norm = "l1") -> Tensor:
    """The equal-mass ECE of each column, by its own edges."""
    return gap_norm(mass_bins(columns, bins), norm)


def debiased_each(columns: Ordered, bins: int) -> Tensor:
    """The debiased l2 error of each column, by its own edges of equal mass."""
    return debiased_l2(mass_bins(columns, bins))


def ks_each(columns: Ordered) -> Tensor:
    """The Kolmogorov-Smirnov error of each column."""
    return columns.gap_RU.cumsum(dim=1).abs().amax(dim=1) / columns.texts


def mass_bins(columns: Ordered, bins: int) -> BinnedSums:
    """Binned sums of each column with its own edges of equal mass, R by 1 by M."""
    return _Cumulative.of(columns).bins(bins)


def sweep_each(columns: Ordered, norm: Norm = "l1") -> Tensor:
    """The sweep of each column."""
    sums = _Cumulative.of(columns)
    bins_R = _swept_bins(columns, sums)
    result_R = torch.empty_like(sums.count_RU[:, 0])
    for bins in bins_R.unique().tolist():
        chosen_R = bins_R == bins
        result_R[chosen_R] = gap_norm(sums.rows(chosen_R).bins(bins), norm)
    return result_R


def _swept_bins(columns: Ordered, sums: _Cumulative) -> Tensor:
    """How many bins each column's sweep ends with."""
    texts = columns.texts
    rising_R = _rising(columns.count_RU, columns.right_RU)
    # Rising text by text, it rises with any number of bins: no need to try them all.
    bins_R = torch.where(rising_R, texts, 1)
    left_L = (~rising_R).nonzero()[:, 0]
    sums, alive_L = sums.rows(left_L), torch.ones_like(left_L).bool()
    reach = sums.last_wrong()
    for bins in range(2, texts + 1):
        if not bool(alive_L.any()):
            break
        if 2 * int(alive_L.sum()) < len(alive_L):
            left_L, sums, alive_L = left_L[alive_L], sums.rows(alive_L), alive_L[alive_L]
            reach = sums.last_wrong()
        rank_M = mass_ranks(texts, bins)
        # Bins of right texts only, above the last wrong one, are never below another.
        rank_M = rank_M[: int((rank_M < reach).sum()) + 1]
        alive_L &= _rising(sums.cut(rank_M, sums.count_RU), sums.cut(rank_M, sums.right_RU))
        bins_R[left_L[alive_L]] = bins
    return bins_R


class _Cumulative(NamedTuple):
    """Sums over all texts of at most each confidence."""

    count_RU: Tensor
    confidence_RU: Tensor
    right_RU: Tensor

    @classmethod
    def of(cls, columns: Ordered) -> _Cumulative:
        confidence_RU = columns.confidence_U * columns.count_RU
        return cls(
            *(
                part.cumsum(dim=1).contiguous()
                for part in (columns.count_RU, confidence_RU, columns.right_RU)
            )
        )

    def rows(self, index: Tensor) -> _Cumulative:
        """Some of the columns of counts."""
        return _Cumulative(*(part[index] for part in self))

    def bins(self, bins: int) -> BinnedSums:
        """Cut each column at its own places of equal mass, after the last equal confidence."""
        rank_M = mass_ranks(int(self.count_RU[0, -1]), bins)
        return BinnedSums(*(self.cut(rank_M, part)[:, None] for part in self))

    def cut(self, rank_M: Tensor, part_RU: Tensor) -> Tensor:
        """What lies between these places in one of the three sums, R by M."""
        rows, distinct = self.count_RU.shape
        rank_RM = rank_M.double().expand(rows, len(rank_M)).contiguous()
        end_RM = torch.searchsorted(self.count_RU, rank_RM).clamp(max=distinct - 1)
        upto_RM = part_RU.gather(1, end_RM)
        return upto_RM.diff(dim=1, prepend=torch.zeros_like(upto_RM[:, :1]))

    def last_wrong(self) -> int:
        """Above which place all texts of all columns are right."""
        wrong_RU = self.count_RU - self.right_RU
        if wrong_RU.numel() == 0:
            return 0
        group_R1 = torch.searchsorted(wrong_RU, wrong_RU[:, -1:].contiguous())
        return int(self.count_RU.gather(1, group_R1).max())


def _rising(count_RM: Tensor, right_RM: Tensor) -> Tensor:
    """Of each column, whether no bin is right less often than one below; empty ones aside."""
    frequency_RM = torch.where(count_RM > 0, right_RM / count_RM.clamp(min=1), -1.0)
    highest_RM = frequency_RM.cummax(dim=1).values
    return ((count_RM == 0) | (frequency_RM >= highest_RM)).all(dim=1)
