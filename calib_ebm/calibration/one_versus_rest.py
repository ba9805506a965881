"""Calibrators that look at one class at a time, and then let the classes sum to one.

    platt              a logistic curve of the class's log-odds. Platt 1999
    isotonic           the best non-decreasing function of p_c. Zadrozny and Elkan, KDD 2002
    histogram_binning, scaling_binning          see `binning.py`

With two classes the second one is fitted and the first takes the rest. None of them changes when a
constant is added to a text's logits. With more than two the predicted class may change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from calib_ebm.calibration.affine import one_hot_targets
from calib_ebm.calibration.calibrator import (
    FIT_AGAIN,
    State,
    check_fit_half,
    check_name,
    count_of,
    few_texts_note,
    missing_classes,
    not_fitted,
    notes_of,
    number,
    numbers,
    spread,
)
from calib_ebm.calibration.checks import check_logits
from calib_ebm.calibration.curves import Line, Sigmoid, fit_isotonic, fit_sigmoid
from calib_ebm.errors import InputError


class Curve(Protocol):
    """From scores of one class to probabilities."""

    def __call__(self, score_N: Tensor) -> Tensor:
        """The probability of each score."""
        ...


class OneVersusRest:
    """What they share: a curve for each class, and rows that sum to one."""

    name: ClassVar[str]
    called: ClassVar[str]
    """For a sentence."""
    temperature: ClassVar[None] = None

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self._curves: list[Curve | None] | None = None
        self._classes = 0
        self._texts = 0

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Fit a curve for each class on logits and labels that are reported nowhere.

        A class of which the fit half holds no text keeps its probability, and a note says so.

        Raises:
            InputError: for fewer than two texts, labels of one class only, or probabilities in
                place of logits.
        """
        check_fit_half(self.called[0].upper() + self.called[1:], logits_NC, labels_N)
        logits_NC, labels_N = logits_NC.detach().cpu().double(), labels_N.cpu().long()
        self._texts, self._classes = logits_NC.shape
        missing = missing_classes(labels_N, self._classes)
        score_CN = self._scores(logits_NC).T.contiguous()
        outcome_CN = one_hot_targets(labels_N, self._classes).T.contiguous()
        self._curves = [
            None if index in missing else self._fit_one(score_CN[index], outcome_CN[index])
            for index in self._fitted_classes()
        ]
        fitted = sum(self._numbers(curve) for curve in self._curves if curve is not None)
        self.notes = (*_missing_note(missing), *few_texts_note(fitted, self._texts))
        return self

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """The classes' curves, brought to a sum of one, in float64."""
        if self._curves is None:
            raise not_fitted(self.name)
        check_logits(logits_NC)
        if logits_NC.shape[1] != self._classes:
            raise InputError(
                f"Logits of {logits_NC.shape[1]} classes.",
                f"{self._classes} classes, as the calibrator was fitted on",
                FIT_AGAIN,
            )
        logits_NC = logits_NC.detach().cpu().double()
        own_NC = logits_NC.softmax(dim=1)
        score_CN = self._scores(logits_NC).T.contiguous()
        columns = [
            own_NC[:, index] if curve is None else curve(score_CN[index])
            for index, curve in zip(self._fitted_classes(), self._curves, strict=True)
        ]
        if self._classes == 2:
            probs_NC = torch.stack((1 - columns[0], columns[0]), dim=1)
        else:
            probs_NC = torch.stack(columns, dim=1)
            total_N1 = probs_NC.sum(dim=1, keepdim=True)
            # Where no class is thought possible, the classifier's own word stands.
            probs_NC = torch.where(total_N1 > 0, probs_NC / total_N1.clamp(min=1e-300), own_NC)
        return self._finished(probs_NC)

    def affine(self, classes: int) -> None:
        """None: no affine map of the logits does this."""
        return

    @property
    def words(self) -> str:
        """Its name and what was fitted."""
        if self._curves is None:
            raise not_fitted(self.name)
        return f"{self.called} ({self._said([one for one in self._curves if one is not None])})"

    def state(self) -> State:
        """The curves and the options."""
        if self._curves is None:
            raise not_fitted(self.name)
        return {
            "name": self.name,
            **self._options(),
            "classes": self._classes,
            "texts": self._texts,
            "curves": [None if curve is None else self._plain(curve) for curve in self._curves],
            "notes": list(self.notes),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted one that wrote this state."""
        check_name(state, cls.name)
        calibrator = cls(**{name: state.get(name) for name in cls()._options()})
        calibrator._classes = count_of(state, "classes")
        calibrator._texts = count_of(state, "texts")
        curves = state.get("curves")
        if not isinstance(curves, list) or len(curves) != len(calibrator._fitted_classes()):
            raise InputError(
                "The saved calibrator's curves are not as many as its classes need.",
                "one for each class (for the second only, when there are two)",
                FIT_AGAIN,
            )
        calibrator._curves = [
            None if one is None else calibrator._curve(one if isinstance(one, dict) else {})
            for one in curves
        ]
        calibrator.notes = notes_of(state)
        return calibrator

    def _fitted_classes(self) -> list[int]:
        return [1] if self._classes == 2 else list(range(self._classes))

    def _options(self) -> dict[str, Any]:
        return {}

    def _scores(self, logits_NC: Tensor) -> Tensor:
        """What the curves are functions of: the probability of each class."""
        return logits_NC.softmax(dim=1)

    def _finished(self, probs_NC: Tensor) -> Tensor:
        return probs_NC

    def _numbers(self, curve: Any) -> int:
        """How many numbers were fitted, for the note on few texts."""
        return 2

    def _fit_one(self, score_N: Tensor, outcome_N: Tensor) -> Curve:
        raise NotImplementedError  # an abstract method: each class below defines it

    def _plain(self, curve: Any) -> State:
        raise NotImplementedError  # an abstract method: each class below defines it

    def _curve(self, plain: Mapping[str, object]) -> Curve:
        raise NotImplementedError  # an abstract method: each class below defines it

    def _said(self, curves: list[Any]) -> str:
        raise NotImplementedError  # an abstract method: each class below defines it


class Platt(OneVersusRest):
    """A slope and an offset of the class's log-odds, with Platt's smoothed targets."""

    name = "platt"
    called = "Platt scaling"

    def _scores(self, logits_NC: Tensor) -> Tensor:
        return log_odds(logits_NC)

    def _fit_one(self, score_N: Tensor, outcome_N: Tensor) -> Sigmoid:
        return fit_sigmoid(score_N, outcome_N, smoothed=True)

    def _plain(self, curve: Sigmoid) -> State:
        return {"slope": curve.slope, "offset": curve.offset}

    def _curve(self, plain: Mapping[str, object]) -> Sigmoid:
        return sigmoid_of(plain)

    def _said(self, curves: list[Sigmoid]) -> str:
        slopes, offsets = ([getattr(c, part) for c in curves] for part in ("slope", "offset"))
        return f"slopes {spread(slopes)}; offsets {spread(offsets)}"


class Smoothed(OneVersusRest):
    """With shares that may be 0 and 1, of which the NLL would be infinite.

    Args:
        smooth: mix the n texts' probabilities with one text's worth of the uniform distribution,
            n / (n + 1) p + 1 / (n + 1) / C.
    """

    def __init__(self, smooth: bool = True) -> None:
        if not isinstance(smooth, bool):
            raise InputError(f"calibrator.smooth is {smooth!r}.", "true | false", "Leave it true.")
        self.smooth = smooth
        super().__init__()

    def _options(self) -> dict[str, Any]:
        return {"smooth": self.smooth}

    def _finished(self, probs_NC: Tensor) -> Tensor:
        if not self.smooth:
            return probs_NC
        return (self._texts * probs_NC + 1 / self._classes) / (self._texts + 1)


class Isotonic(Smoothed):
    """The non-decreasing function of the class's probability of least squares.

    Args:
        smooth: as of `Smoothed`.
    """

    name = "isotonic"
    called = "isotonic regression"

    def _numbers(self, curve: Line) -> int:
        return len(curve.y_P.unique())

    def _fit_one(self, score_N: Tensor, outcome_N: Tensor) -> Line:
        return fit_isotonic(score_N, outcome_N)

    def _plain(self, curve: Line) -> State:
        return {"x": curve.x_P.tolist(), "y": curve.y_P.tolist()}

    def _curve(self, plain: Mapping[str, object]) -> Line:
        x_P, y_P = numbers(plain, "x"), numbers(plain, "y")
        rises = x_P.ndim == 1 and x_P.shape == y_P.shape and len(x_P) and (x_P.diff() > 0).all()
        if not rises or not are_shares(y_P):
            raise broken_curve()
        return Line(x_P, y_P)

    def _said(self, curves: list[Line]) -> str:
        levels = [self._numbers(curve) for curve in curves]
        return f"{from_to(levels)} levels for each fitted class"


def log_odds(logits_NC: Tensor) -> Tensor:
    """Log p_c / (1 - p_c) of each class, exact also where p_c is 0 or 1 in floating point.

    >>> log_odds(torch.tensor([[100.0, 0.0]], dtype=torch.float64))
    tensor([[ 100., -100.]], dtype=torch.float64)
    """
    columns = []
    for index in range(logits_NC.shape[1]):
        others = torch.cat((logits_NC[:, :index], logits_NC[:, index + 1 :]), dim=1)
        columns.append(logits_NC[:, index] - others.logsumexp(dim=1))
    return torch.stack(columns, dim=1)


def sigmoid_of(plain: Mapping[str, object]) -> Sigmoid:
    """The logistic curve that was saved."""
    slope, offset = number(plain, "slope"), number(plain, "offset")
    if not (math.isfinite(slope) and math.isfinite(offset)):
        raise broken_curve()
    return Sigmoid(slope, offset)


def are_shares(values: Tensor) -> bool:
    """Whether all are from 0 to 1."""
    return bool(((values >= 0) & (values <= 1)).all())


def broken_curve() -> InputError:
    """The error of a saved curve that is none."""
    return InputError(
        "A curve of the saved calibrator is none.",
        "edges or points that increase, and a value from 0 to 1 for each",
        FIT_AGAIN,
    )


def from_to(counts: list[int]) -> str:
    """The range of some counts, in words."""
    low, high = min(counts, default=0), max(counts, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _missing_note(missing: list[int]) -> tuple[str, ...]:
    if not missing:
        return ()
    return (
        f"The fit half holds no text of class {', '.join(map(str, missing))}: the classifier's own "
        "probability of it is kept. Give a larger fit half, or take calibrator=temperature.",
    )
