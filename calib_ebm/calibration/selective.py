"""What abstaining is worth: the risk of the texts that are kept, the most confident first.

    risk at coverage k/N    share of errors among the k most confident texts
    aurc                    its mean over k = 1 ... N; Geifman, Uziel and El-Yaniv, ICLR 2019
    e_aurc                  aurc less that of an order with all errors last: 0 is the best ranking

Texts of equal confidence cannot be told apart, so each figure is the mean over all their orders,
in closed form. A random order of confidences has aurc near the error rate. Neither figure looks at
calibration: any rising function of the confidence leaves them as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.checks import check_predictions
from calib_ebm.calibration.ordered import Ordered, ordered


class RiskCoverage(NamedTuple):
    """The coverages that a threshold can give, rising, float64."""

    coverage_U: Tensor
    """Share of texts of at least this confidence."""
    risk_U: Tensor
    """Share of errors among them."""
    confidence_U: Tensor
    """The threshold, falling."""


def risk_coverage(probs_BC: Tensor, labels_B: Tensor) -> RiskCoverage:
    """The curve, one point per distinct confidence.

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2]])
    >>> risk_coverage(probs, torch.tensor([0, 0, 1])).risk_U
    tensor([0.0000, 0.3333], dtype=torch.float64)
    """
    check_predictions(probs_BC, labels_B)
    columns = ordered(probs_BC, labels_B)
    kept_U, wrong_U = (part_RU[0] for part_RU in _from_the_surest(columns))
    kept_U, wrong_U = kept_U.cumsum(dim=0), wrong_U.cumsum(dim=0)
    return RiskCoverage(kept_U / kept_U[-1], wrong_U / kept_U, columns.confidence_U.flip(0))


def aurc(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean over k of the share of errors among the k most confident texts.

    The second of three is wrong, (0 + 1/2 + 1/3) / 3:

    >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    >>> aurc(probs, torch.tensor([0, 1, 0]))
    tensor(0.2778, dtype=torch.float64)
    """
    check_predictions(probs_BC, labels_B)
    return aurc_each(ordered(probs_BC, labels_B))[0]


def e_aurc(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """AURC above that of as many errors, all of them least confident; exact at any N.

    The papers' (1 - r) log(1 - r) + r for the latter, with the error rate r, is its limit.
    """
    check_predictions(probs_BC, labels_B)
    return e_aurc_each(ordered(probs_BC, labels_B))[0]


def aurc_each(columns: Ordered) -> Tensor:
    """AURC of each of R columns, unchecked.

    Of g texts of one confidence, e of them wrong, after a texts with A errors: the j-th has A + e
    j/g errors so far on average, and the sum over j of (A + e j/g) / (a + j) is
    (A - a e/g) (H(a + g) - H(a)) + e with the harmonic numbers H.
    """
    count_RU, wrong_RU = _from_the_surest(columns)
    upto_RU, errors_RU = count_RU.cumsum(dim=1), wrong_RU.cumsum(dim=1)
    before_RU = upto_RU - count_RU
    harmonic = _harmonic(columns.texts)
    steps_RU = harmonic[upto_RU.long()] - harmonic[before_RU.long()]
    rate_RU = wrong_RU / count_RU.clamp(min=1)
    terms_RU = (errors_RU - wrong_RU - before_RU * rate_RU) * steps_RU + wrong_RU
    return terms_RU.sum(dim=1) / columns.texts


def e_aurc_each(columns: Ordered) -> Tensor:
    """E-AURC of each of R columns, unchecked."""
    texts = columns.texts
    right_R = columns.right_RU.sum(dim=1)
    harmonic = _harmonic(texts)
    best_R = (texts - right_R - right_R * (harmonic[texts] - harmonic[right_R.long()])) / texts
    return (aurc_each(columns) - best_R).clamp(min=0)


def _from_the_surest(columns: Ordered) -> tuple[Tensor, Tensor]:
    """Counts and errors per distinct confidence, the highest first."""
    wrong_RU = columns.count_RU - columns.right_RU
    return columns.count_RU.flip(1), wrong_RU.flip(1)


def _harmonic(texts: int) -> Tensor:
    """H(0) = 0, H(1) ... H(N)."""
    terms = 1 / torch.arange(1, texts + 1, dtype=torch.float64)
    return torch.cat([terms.new_zeros(1), terms.cumsum(dim=0)])
