"""How often the prediction is right: the figures by which tasks are judged, as pure functions.

Each takes `probs_BC`, rows that sum to one, and `labels_B`, and returns a float64 scalar. All three
follow from counts per class, so that they add up over batches, ranks and resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.checks import check_predictions


class ClassCounts(NamedTuple):
    """All that accuracy, MCC and F1 need, per class c; any leading axes are carried along."""

    hit_C: Tensor
    """Texts of class c that were predicted as c."""
    label_C: Tensor
    predicted_C: Tensor


def class_counts(probs_BC: Tensor, labels_B: Tensor) -> ClassCounts:
    """Count labels, predictions (a tie goes to the first class) and their agreement."""
    classes, predicted_B = probs_BC.shape[1], probs_BC.argmax(dim=1)
    labels_B = labels_B.long()

    def count(index: Tensor) -> Tensor:
        return torch.bincount(index, minlength=classes).double()

    return ClassCounts(
        count(labels_B[predicted_B == labels_B]), count(labels_B), count(predicted_B)
    )


def accuracy(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Share of texts whose most probable class is the label."""
    check_predictions(probs_BC, labels_B)
    return correct_each(probs_BC, labels_B).mean()


def mcc(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Matthews correlation of labels and predictions for any number of classes. Gorodkin (2004)."""
    check_predictions(probs_BC, labels_B)
    return mcc_from_counts(class_counts(probs_BC, labels_B))


def f1(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """F1 of the predictions: of class 1 when there are two classes, else macro.

    Macro is the mean over the classes that occur among labels or predictions; GLUE's F1 is the
    binary one.
    """
    check_predictions(probs_BC, labels_B)
    return f1_from_counts(class_counts(probs_BC, labels_B))


def mcc_from_counts(counts: ClassCounts) -> Tensor:
    """Covariance over standard deviations; 0 where labels or predictions are all of one class."""
    total = counts.label_C.sum(dim=-1)
    by_chance = (counts.label_C * counts.predicted_C).sum(dim=-1)
    covariance = counts.hit_C.sum(dim=-1) * total - by_chance
    spread_label = total.square() - counts.label_C.square().sum(dim=-1)
    spread_predicted = total.square() - counts.predicted_C.square().sum(dim=-1)
    scale = spread_label.sqrt() * spread_predicted.sqrt()
    return torch.where(scale > 0, covariance / scale.clamp(min=1), torch.zeros_like(scale))


def f1_from_counts(counts: ClassCounts) -> Tensor:
    """2 hits / (labels + predictions), of class 1 of two, else the mean of those that occur."""
    either_C = counts.label_C + counts.predicted_C
    f1_C = 2 * counts.hit_C / either_C.clamp(min=1)
    if f1_C.shape[-1] == 2:
        return f1_C[..., 1]
    return f1_C.sum(dim=-1) / (either_C > 0).sum(dim=-1)


def correct_each(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """1 where the most probable class is the label, else 0; unchecked."""
    return (probs_BC.argmax(dim=1) == labels_B).double()
