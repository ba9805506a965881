"""How far probabilities are from what comes true: the estimators, as pure functions.

Each takes `probs_BC`, float32 or float64 rows that sum to one, and `labels_B`, and returns a
float64 scalar. Four different figures go by the name of "ECE with 20 bins"; they differ by a
factor of three on the same data:

    ece_top_label    one histogram of the confidence max_c p_c; outcome: the prediction was right
    ece_classwise    a histogram per class of p_c; outcome: the label is c; the mean over classes
    ece_pooled       one histogram of all B*C probabilities; outcome: the label is that class
    PosCal's         the classwise sum, not divided by the C classes: C * ece_classwise

Each may be read with bins of equal width or of equal mass and in three norms (`bins.py`); the
figure that goes by the bare name has 20 bins of equal width and the l1 norm. `ordered.py` and
`smooth.py` have those that need no choice of bins. All of them are biased upwards, the more so the
fewer texts there are: read them beside their floor (`floors.py`). Wrong input raises `InputError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from calib_ebm.calibration.bins import (
    Binning,
    Norm,
    binned_sums,
    debiased_l2,
    edges_of,
    equal_width_edges,
    gap_norm,
)
from calib_ebm.calibration.checks import (
    check_bins,
    check_choice,
    check_logits,
    check_predictions,
    check_truth,
)

Pairs = tuple[Tensor, Tensor]
"""Probabilities and their outcomes, both N by G, one histogram per column."""


# --- What is binned against what ---


def top_label_pairs(probs_BC: Tensor, labels_B: Tensor) -> Pairs:
    """Confidence of the predicted class against its being right, B by 1; of a tie the first."""
    confidence_B, predicted_B = probs_BC.max(dim=1)
    return confidence_B[:, None], (predicted_B == labels_B)[:, None]


def classwise_pairs(probs_BC: Tensor, labels_B: Tensor) -> Pairs:
    """Each class's probability against whether it is the label, B by C."""
    return probs_BC, one_hot(labels_B.long(), probs_BC.shape[1])


def pooled_pairs(probs_BC: Tensor, labels_B: Tensor) -> Pairs:
    """The same B*C probabilities and outcomes as one column, text by text."""
    probs, outcomes = classwise_pairs(probs_BC, labels_B)
    return probs.reshape(-1, 1), outcomes.reshape(-1, 1)


def true_pairs(probs_BC: Tensor, truth_BC: Tensor) -> Pairs:
    """Confidence of the predicted class against its exact probability, B by 1."""
    confidence_B, predicted_B = probs_BC.max(dim=1)
    return confidence_B[:, None], truth_BC.gather(1, predicted_B[:, None])


# --- Calibration errors ---


def ece_top_label(
    probs_BC: Tensor,
    labels_B: Tensor,
    bins: int = 20,
    *,
    binning: Binning = "width",
    norm: Norm = "l1",
) -> Tensor:
    """Mean gap between confidence and how often the prediction is right. Guo et al., ICML 2017.

    One right at .9 and one wrong at .7, (.1 + .7) / 2:

    >>> ece_top_label(torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([0, 1]))
    tensor(0.4000, dtype=torch.float64)
    """
    check_predictions(probs_BC, labels_B)
    return _ece(top_label_pairs(probs_BC, labels_B), bins, binning, norm)


def ece_classwise(
    probs_BC: Tensor,
    labels_B: Tensor,
    bins: int = 20,
    *,
    binning: Binning = "width",
    norm: Norm = "l1",
) -> Tensor:
    """Mean over classes of the gap between p_c and how often the label is c; the paper's."""
    check_predictions(probs_BC, labels_B)
    return _ece(classwise_pairs(probs_BC, labels_B), bins, binning, norm)


def ece_pooled(
    probs_BC: Tensor,
    labels_B: Tensor,
    bins: int = 20,
    *,
    binning: Binning = "width",
    norm: Norm = "l1",
) -> Tensor:
    """The gap over one histogram of all B*C probabilities.

    With bins of equal width never above `ece_classwise`.
    """
    check_predictions(probs_BC, labels_B)
    return _ece(pooled_pairs(probs_BC, labels_B), bins, binning, norm)


def ece_debiased_l2(
    probs_BC: Tensor,
    labels_B: Tensor,
    bins: int = 20,
    *,
    pairs: Callable[[Tensor, Tensor], Pairs] = top_label_pairs,
    binning: Binning = "mass",
) -> Tensor:
    """The l2 calibration error less what the labels' chance adds. Kumar, Liang & Ma, NeurIPS 2019.

    Args:
        probs_BC: probabilities.
        labels_B: labels.
        bins: how many.
        pairs: what is binned against what: `top_label_pairs`, `classwise_pairs`, `pooled_pairs`.
        binning: theirs is of equal mass.
    """
    check_predictions(probs_BC, labels_B)
    check_bins(bins)
    check_choice("binning", binning, get_args(Binning))
    probs, outcomes = pairs(probs_BC, labels_B)
    return debiased_l2(binned_sums(probs, outcomes, edges_of(probs, bins, binning)))


def true_calibration_error(probs_BC: Tensor, truth_BC: Tensor, bins: int = 20) -> Tensor:
    """Top-label ECE with the exact P(y|x) of the predicted class in place of the 0 or 1.

    Free of the labels' noise, so it is zero for exact probabilities. `truth_BC`: exact
    probabilities, where they are known.
    """
    check_truth(probs_BC, truth_BC)
    return _ece(true_pairs(probs_BC, truth_BC), bins)


def pointwise_error(probs_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Mean over texts of |confidence - exact probability of the predicted class|.

    Never below the binned `true_calibration_error`, where errors cancel within a bin.
    """
    check_truth(probs_BC, truth_BC)
    return pointwise_each(probs_BC, truth_BC).mean()


class ReliabilityBins(NamedTuple):
    """A reliability diagram as numbers, float64; the means of an empty bin are NaN."""

    count_M: Tensor
    confidence_M: Tensor
    """Mean confidence."""
    frequency_M: Tensor
    """How often the prediction was right."""
    edges_M1: Tensor


def reliability_bins(probs_BC: Tensor, labels_B: Tensor, bins: int = 20) -> ReliabilityBins:
    """The bins behind `ece_top_label`, the count-weighted mean of |confidence - frequency|."""
    check_predictions(probs_BC, labels_B)
    check_bins(bins)
    sums = binned_sums(*top_label_pairs(probs_BC, labels_B), equal_width_edges(bins, probs_BC))
    count_M, confidence_M, outcome_M = (sums_GM[0] for sums_GM in sums)
    edges_M1 = equal_width_edges(bins, count_M)
    return ReliabilityBins(count_M, confidence_M / count_M, outcome_M / count_M, edges_M1)


def _ece(pairs: Pairs, bins: int, binning: Binning = "width", norm: Norm = "l1") -> Tensor:
    check_bins(bins)
    check_choice("binning", binning, get_args(Binning))
    check_choice("norm", norm, get_args(Norm))
    return gap_norm(binned_sums(*pairs, edges_of(pairs[0], bins, binning)), norm)


# --- Proper scores ---


def brier(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean over texts of the sum over classes of (p_c - [label is c])^2, from 0 to 2. Brier (1950).

    For two classes this is twice the figure that looks at P(y=1) alone.
    """
    check_predictions(probs_BC, labels_B)
    return brier_each(probs_BC, labels_B).mean()


def nll(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean of -log p of the label, in nats.

    A probability of zero is read as the smallest normal float64, 2.2e-308, so one such text counts
    708.4 and the mean stays finite. From logits use `nll_from_logits`, which needs no clipping.
    """
    check_predictions(probs_BC, labels_B)
    return nll_each(probs_BC, labels_B).mean()


def nll_from_logits(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[label] in float64, exact where the softmax underflows."""
    check_logits(logits_BC, labels_B)
    log_probs_BC = logits_BC.double().log_softmax(dim=1)
    return -log_probs_BC.gather(1, labels_B.long()[:, None]).mean()


# --- Per text, for sums over batches and resamples ---


def brier_each(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Squared distance from the one-hot label; unchecked."""
    return (probs_BC.double() - one_hot(labels_B.long(), probs_BC.shape[1])).square().sum(dim=1)


def nll_each(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """-log of the label's probability, clipped as said in `nll`; unchecked."""
    probs_B = probs_BC.gather(1, labels_B.long()[:, None])[:, 0].double()
    return -probs_B.clamp(min=torch.finfo(torch.float64).tiny).log()


def pointwise_each(probs_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """|confidence - exact probability of the predicted class|; unchecked."""
    confidence_B1, truth_B1 = true_pairs(probs_BC, truth_BC)
    return (confidence_B1.double() - truth_B1.double()).abs()[:, 0]
