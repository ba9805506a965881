"""What a person may give as probabilities and labels: checked once, cheaply, named when wrong.

The checks are a few reductions and one look at their result; only when that fails is the culprit
searched for. Nothing is ever guessed: logits are refused, not softmaxed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calib_ebm.errors import InputError

SUM_TOLERANCE = 2e-3
"""How far a row may be from one: three printed decimals of three classes are .001 off."""

_SOFTMAX = "Apply softmax first: probs_BC = logits_BC.double().softmax(dim=1)."
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_predictions(probs_BC: Tensor, labels_B: Tensor) -> None:
    """Raise InputError unless these are B rows of probabilities and B labels of their columns."""
    _check_probability_shape(probs_BC, "probabilities")
    _check_label_shape(labels_B, len(probs_BC))
    classes = probs_BC.shape[1]
    labels_fit = (labels_B >= 0).all() & (labels_B < classes).all()
    rows_fit = _rows_are_distributions(probs_BC)
    if not bool(rows_fit & labels_fit):  # one look at the device's result per call
        if not bool(rows_fit):
            raise _probability_error(probs_BC, "probabilities")
        raise _label_error(labels_B, classes)


def check_probabilities(probs_BC: Tensor, name: str = "probabilities") -> None:
    """Raise InputError unless every row is a distribution over the columns."""
    _check_probability_shape(probs_BC, name)
    if not bool(_rows_are_distributions(probs_BC)):
        raise _probability_error(probs_BC, name)


def check_truth(probs_BC: Tensor, truth_BC: Tensor) -> None:
    """Raise InputError unless both are distributions over the same classes for the same texts."""
    check_probabilities(probs_BC)
    check_probabilities(truth_BC, "true probabilities")
    if probs_BC.shape != truth_BC.shape:
        raise InputError(
            f"Probabilities of {tuple(probs_BC.shape)}, true ones of {tuple(truth_BC.shape)}.",
            "one row of true probabilities per row of probabilities, over the same classes",
            "Join the two by the texts' ids.",
        )


def check_logits(logits_NC: Tensor, labels_N: Tensor | None = None) -> None:
    """Raise InputError unless these are finite logits, N by C > 1, and labels that fit them."""
    if (
        not isinstance(logits_NC, Tensor)
        or not logits_NC.is_floating_point()
        or logits_NC.ndim != 2
    ):
        is_tensor = isinstance(logits_NC, Tensor)
        shape = f"{logits_NC.dtype} of shape {tuple(logits_NC.shape)}" if is_tensor else ""
        raise InputError(
            f"The logits are {shape or type(logits_NC).__name__}.",
            "a floating-point tensor with a row per text and a column per class",
            "Give the classifier's outputs before softmax.",
        )
    if len(logits_NC) == 0 or logits_NC.shape[1] < 2:
        raise InputError(
            f"Logits of shape {tuple(logits_NC.shape)}.",
            "at least one row and two columns",
            "Look at what removed the texts: a split without rows, or a filter.",
        )
    if labels_N is not None:
        _check_label_shape(labels_N, len(logits_NC))
        if not bool(((labels_N >= 0) & (labels_N < logits_NC.shape[1])).all()):
            raise _label_error(labels_N, logits_NC.shape[1])
    if not bool(logits_NC.isfinite().all()):
        row = int((~logits_NC.isfinite()).any(dim=1).nonzero()[0])
        raise InputError(
            f"The logits of row {row} are not finite.",
            "finite numbers",
            "Look for the first non-finite loss or logit of the run.",
        )


def check_bins(bins: int) -> None:
    """Raise InputError unless there is at least one bin."""
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InputError(f"bins is {bins!r}.", "a whole number from 1", "Leave it at 20.")


def check_choice(name: str, given: object, allowed: tuple[str, ...]) -> None:
    """Raise InputError unless an option is one of its names."""
    if given not in allowed:
        raise InputError(f"{name} is {given!r}.", " | ".join(allowed), "Take one of these.")


def check_scores(score_N: Tensor, name: str) -> None:
    """Raise InputError unless these are one finite number per text, of one text or more."""
    is_tensor = isinstance(score_N, Tensor)
    if not is_tensor or not score_N.is_floating_point() or score_N.ndim != 1 or len(score_N) == 0:
        shape = f"{score_N.dtype} of shape {tuple(score_N.shape)}" if is_tensor else ""
        raise InputError(
            f"The {name} are {shape or type(score_N).__name__}.",
            "a floating-point tensor with one number per text, and at least one text",
            "Give the scores of one set of texts.",
        )
    if not bool(score_N.isfinite().all()):
        row = int((~score_N.isfinite()).nonzero()[0])
        raise InputError(
            f"The {name} of row {row} are not finite.",
            "finite numbers",
            "Look for the first non-finite loss or logit of the run.",
        )


def _check_label_shape(labels_B: Tensor, rows: int) -> None:
    """Raise InputError unless there is one whole number per row; their values are not looked at."""
    if not isinstance(labels_B, Tensor) or labels_B.dtype not in _INTEGERS:
        given = labels_B.dtype if isinstance(labels_B, Tensor) else type(labels_B).__name__
        raise InputError(
            f"Labels of type {given}.",
            "a tensor of whole numbers, the index of each text's class",
            "Give torch.tensor(labels, dtype=torch.int64).",
        )
    if labels_B.shape != (rows,):
        raise InputError(
            f"Labels of shape {tuple(labels_B.shape)} for {rows} rows.",
            f"one label per row, shape ({rows},)",
            "Give class indices, not one-hot rows, in the order of the rows.",
        )


def _label_error(labels_B: Tensor, classes: int) -> InputError:
    """Name the first label that is no index of the C classes."""
    row = int(((labels_B < 0) | (labels_B >= classes)).nonzero()[0])
    return InputError(
        f"The label of row {row} is {int(labels_B[row])}, with {classes} classes.",
        f"0 to {classes - 1}",
        "Leave out texts without a label (-1); keep the label order the model was trained with.",
    )


def _rows_are_distributions(probs_BC: Tensor) -> Tensor:
    """Whether no entry is negative and each row sums to one; NaN compares as false."""
    near_one = (probs_BC.sum(dim=1) - 1).abs() <= SUM_TOLERANCE
    return (probs_BC >= 0).all() & near_one.all()


def _check_probability_shape(probs_BC: Tensor, name: str) -> None:
    if not isinstance(probs_BC, Tensor) or probs_BC.dtype not in (torch.float32, torch.float64):
        given = probs_BC.dtype if isinstance(probs_BC, Tensor) else type(probs_BC).__name__
        raise InputError(
            f"The {name} are of type {given}.",
            "a torch tensor of float32 or float64 (bfloat16 rounds .9981 to one)",
            _SOFTMAX,
        )
    if probs_BC.ndim != 2 or probs_BC.shape[1] < 2:
        raise InputError(
            f"The {name} are of shape {tuple(probs_BC.shape)}.",
            "a row per text and a column per class, at least two columns",
            "With P(y=1) alone, give both columns: torch.stack([1 - p, p], dim=1).",
        )
    if len(probs_BC) == 0:
        raise InputError(
            f"The {name} are of no text at all.",
            "at least one row",
            "Look at what removed the texts: a split without rows, or a filter.",
        )


def _probability_error(probs_BC: Tensor, name: str) -> InputError:
    """Name the first wrong row: NaN, then negative, then a wrong sum."""
    allowed = f"numbers from 0 to 1 that sum to one in each row (within {SUM_TOLERANCE})"
    if probs_BC.isnan().any():
        row = int(probs_BC.isnan().any(dim=1).nonzero()[0])
        to_do = "Look for the first non-finite loss or logit of the run."
        return InputError(f"The {name} of row {row} hold NaN.", allowed, to_do)
    if (probs_BC < 0).any():
        row = int((probs_BC < 0).any(dim=1).nonzero()[0])
        lowest = float(probs_BC[row].min())
        given = f"The {name} of row {row} hold {lowest:.4g}: these look like logits."
        return InputError(given, allowed, _SOFTMAX)
    row = int(((probs_BC.sum(dim=1) - 1).abs() > SUM_TOLERANCE).nonzero()[0])
    given = f"The {name} of row {row} sum to {float(probs_BC[row].sum()):.6g}."
    return InputError(given, allowed, f"If these are logits: {_SOFTMAX}")
