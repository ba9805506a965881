"""What the Brier score is made of: reliability, resolution, uncertainty, and what bins leave over.

Murphy's (1973) three terms add up to the score only where all forecasts of a bin are the same. With
bins of some width two more are needed (Stephenson, Coelho and Jolliffe, 2008), and then the sum is
exact whatever the bins:

    brier = reliability - resolution + uncertainty + within_variance - within_covariance

Each is a sum over classes c and bins m of p_c, with n texts, mean probability p and frequency y:

    reliability         n/N (p - y)^2             squared calibration error, summed over classes
    resolution          n/N (y - y_c)^2           how far frequencies lie from y_c, the class's own
    uncertainty         y_c (1 - y_c)             the score of the frequencies alone
    within_variance     variance of p_c inside the bins
    within_covariance   twice the covariance of p_c with the outcome inside the bins

Reliability is biased upwards as an ECE is: it has a floor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.bins import cell_index, cell_totals, equal_width_edges
from calib_ebm.calibration.checks import check_bins, check_predictions
from calib_ebm.calibration.errors import classwise_pairs


class BrierParts(NamedTuple):
    """Float64 terms of one Brier score, or of R of them."""

    reliability: Tensor
    resolution: Tensor
    uncertainty: Tensor
    within_variance: Tensor
    within_covariance: Tensor

    @property
    def within(self) -> Tensor:
        """What bins leave over, so that reliability - resolution + uncertainty + within = brier."""
        return self.within_variance - self.within_covariance

    @property
    def total(self) -> Tensor:
        """The Brier score."""
        return self.reliability - self.resolution + self.uncertainty + self.within


class BrierSums(NamedTuple):
    """Per class and bin: sums of 1, p, y, p^2 and p y; leading axes are carried along."""

    count_CM: Tensor
    prob_CM: Tensor
    outcome_CM: Tensor
    square_CM: Tensor
    product_CM: Tensor


def brier_parts(probs_BC: Tensor, labels_B: Tensor, bins: int = 20) -> BrierParts:
    """The terms of `brier` with bins of equal width.

    Two texts, P(1) = .8 and the labels 1 and 0, for each of two classes: .3^2, 0, 1/4.

    >>> parts = brier_parts(torch.tensor([[0.2, 0.8]] * 2).double(), torch.tensor([1, 0]))
    >>> [round(part.item(), 4) + 0 for part in parts]
    [0.18, 0.0, 0.5, 0.0, 0.0]
    """
    check_predictions(probs_BC, labels_B)
    check_bins(bins)
    return parts_of(brier_sums(probs_BC, labels_B, bins))


def brier_sums(probs_BC: Tensor, labels_B: Tensor, bins: int) -> BrierSums:
    """The sums behind the terms, unchecked."""
    entries, cell_BC = brier_entries(probs_BC, labels_B, bins)
    classes = probs_BC.shape[1]
    return BrierSums(
        *(cell_totals(entry, cell_BC, classes * bins).view(classes, bins) for entry in entries)
    )


def brier_entries(
    probs_BC: Tensor, labels_B: Tensor, bins: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What each text adds, five times B by C, and to which cell."""
    cell_BC = cell_index(probs_BC, equal_width_edges(bins, probs_BC))
    probs_BC, outcome_BC = (part.double() for part in classwise_pairs(probs_BC, labels_B))
    ones_BC = torch.ones_like(probs_BC)
    entries = (ones_BC, probs_BC, outcome_BC, probs_BC.square(), probs_BC * outcome_BC)
    return entries, cell_BC


def parts_of(sums: BrierSums) -> BrierParts:
    """The terms from their sums."""
    count_CM, prob_CM, outcome_CM, square_CM, product_CM = sums
    texts = count_CM.sum(dim=-1, keepdim=True)
    filled_CM = count_CM.clamp(min=1)
    overall_C1 = outcome_CM.sum(dim=-1, keepdim=True) / texts

    def total(terms_CM: Tensor) -> Tensor:
        return (terms_CM / texts).sum(dim=(-2, -1))

    return BrierParts(
        reliability=total((prob_CM - outcome_CM).square() / filled_CM),
        resolution=total((outcome_CM - count_CM * overall_C1).square() / filled_CM),
        uncertainty=(overall_C1 * (1 - overall_C1)).sum(dim=(-2, -1)),
        within_variance=total(square_CM - prob_CM.square() / filled_CM),
        within_covariance=2 * total(product_CM - prob_CM * outcome_CM / filled_CM),
    )
