"""What every post-hoc calibrator is: fitted on texts that are reported nowhere.

To add one: a class with these methods, its name in `calibrators.py`, and a config of that name in
`conf/calibrator`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from calib_ebm.calibration.checks import SUM_TOLERANCE, check_logits
from calib_ebm.errors import InputError

State = dict[str, object]
"""A fitted calibrator as plain values, for JSON: nothing in it can be executed."""

FIT_AGAIN = "Fit the calibrator again."


class Affine(NamedTuple):
    """Calibrated logits weight @ logits + bias: what a classifier's last layer can take over."""

    weight_CC: Tensor
    bias_C: Tensor

    def __call__(self, logits_NC: Tensor) -> Tensor:
        """Calibrated logits in float64."""
        return logits_NC.double() @ self.weight_CC.T + self.bias_C


class Calibrator(Protocol):
    """From logits to probabilities. Take logits, never probabilities; work in float64."""

    name: ClassVar[str]

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Fit on the fit half and return itself. Raises InputError where that cannot be done."""
        ...

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """Calibrated float64 probabilities. Raises InputError before `fit`."""
        ...

    def affine(self, classes: int) -> Affine | None:
        """Itself as an affine map of C logits; None when it is none."""
        ...

    @property
    def temperature(self) -> float | None:
        """The one number that logits are divided by; None for a calibrator that has none."""
        ...

    @property
    def words(self) -> str:
        """Its name and what was fitted, to stand within a sentence."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the person about the last fit."""
        ...

    def state(self) -> State:
        """All that `from_state` needs. Raises InputError before `fit`."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted calibrator that wrote this state."""
        ...


# --- What calibrators may be fitted on ---


def check_fit_half(what: str, logits_NC: Tensor, labels_N: Tensor) -> None:
    """Raise InputError unless `what` can be fitted on these logits and labels.

    Refused are an empty half, one text, labels of one class, and probabilities in place of logits.
    """
    check_texts(what, len(labels_N), len(set(labels_N.tolist())))
    check_logits(logits_NC, labels_N)
    rows = logits_NC.double()
    sums_to_one = bool(((rows.sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all() & (rows >= 0).all())
    # Whole numbers that sum to one are a hand-made example; neither kind is whole in earnest.
    if sums_to_one and bool((rows != rows.round()).any()):
        raise InputError(
            "The logits of every text are from 0 to 1 and sum to one: these are probabilities.",
            "the classifier's outputs before softmax",
            "Give the logits, or the logarithms of the probabilities.",
        )


def check_texts(what: str, texts: int, classes_seen: int) -> None:
    """Raise InputError unless there are enough texts of enough classes to fit `what`."""
    if texts < 2 or classes_seen < 2:
        half = "an empty fit half" if texts == 0 else f"{texts} texts of {classes_seen} class(es)"
        raise InputError(
            f"{what} is to be fitted on {half}.",
            "at least two texts, of at least two classes",
            "Give a larger fit half, or set calibrator=none.",
        )


def missing_classes(labels_N: Tensor, classes: int) -> list[int]:
    """Classes of which the fit half holds no text."""
    return (labels_N.long().bincount(minlength=classes) == 0).nonzero()[:, 0].tolist()


def few_texts_note(numbers: int, texts: int) -> tuple[str, ...]:
    """A note when there are fewer than ten texts to each fitted number."""
    if texts >= 10 * numbers:
        return ()
    return (
        f"The calibrator has {numbers} numbers, fitted on {texts} texts only: compare it with "
        "calibrator=temperature, which has one.",
    )


# --- States, which may be a stranger's ---


def not_fitted(name: str) -> InputError:
    """The error of a calibrator that is used before it was fitted."""
    return InputError(
        f"This calibrator ({name}) was not fitted.",
        "a calibrator after fit() or from_state()",
        "Fit it on the logits and labels of the fit half.",
    )


def check_name(state: Mapping[str, object], name: str) -> None:
    """Raise InputError unless the state is of the calibrator of that name."""
    if state.get("name") != name:
        given = f"The saved calibrator is {state.get('name')!r}."
        raise InputError(given, repr(name), "Load it with the class that wrote it.")


def number(state: Mapping[str, object], key: str) -> float:
    """A number of a state."""
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        given = f"The saved calibrator has {key}={value!r}."
        raise InputError(given, "a number", FIT_AGAIN)
    return float(value)


def count_of(state: Mapping[str, object], key: str) -> int:
    """A whole number of a state, at least 2."""
    value = number(state, key)
    if not (2 <= value < math.inf and value == int(value)):
        given = f"The saved calibrator has {key}={value}."
        raise InputError(given, "a whole number from 2", FIT_AGAIN)
    return int(value)


def numbers(state: Mapping[str, object], key: str) -> Tensor:
    """A list of finite numbers, or a list of such lists of one length, in float64."""
    value = state.get(key)
    try:
        if not isinstance(value, list):
            raise TypeError("it is no list")
        tensor = torch.tensor(value, dtype=torch.float64)
        if not tensor.isfinite().all():
            raise ValueError("it holds a number that is not finite")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The saved calibrator's {key} cannot be read ({error}).", "finite numbers", FIT_AGAIN
        ) from error
    return tensor


def notes_of(state: Mapping[str, object]) -> tuple[str, ...]:
    """The notes that were saved with a calibrator."""
    notes = state.get("notes")
    return tuple(str(one) for one in notes) if isinstance(notes, list) else ()


def spread(values: Tensor | Sequence[float]) -> str:
    """Up to four numbers one by one, more of them by their ends.

    >>> spread([0.5, 1.0]), spread([1.0, 2.0, 3.0, 4.0, 5.0])
    ('0.50, 1.00', '1.00 to 5.00')
    """
    plain = [float(value) for value in values]
    if len(plain) <= 4:
        return ", ".join(f"{value:.2f}" for value in plain)
    return f"{min(plain):.2f} to {max(plain):.2f}"


def check_option(name: str, value: float, allowed: str, fits: bool) -> None:
    """Raise InputError unless an option of a calibrator fits."""
    if not fits or not math.isfinite(value):
        raise InputError(f"calibrator.{name} is {value!r}.", allowed, "Leave it at its default.")
