"""Calibrators that are the softmax of an affine map of the logits, or of log-probabilities.

    vector              softmax(a * z + b), a slope and a bias for each class. Guo et al., ICML 2017
    matrix              softmax(A z + b). Ibid.
    dirichlet           softmax(A log p + b), off-diagonal entries and biases shrunk to zero (ODIR).
                        Kull et al., NeurIPS 2019
    structured_vector   softmax(a * log q + b) and softmax(A log q + b), q being temperature-scaled,
    structured_matrix   with a ridge towards q that weakens as texts grow in number.
                        Berta, Holzmueller, Jordan and Bach, AISTATS 2026

The first two fit a correction of z / T, so that they start from temperature scaling and their ridge
means the same whatever the size of the logits. They change when a constant is added to a text's
logits; the others do not, and for that reason are no affine map of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from calib_ebm.calibration.affine import Problem, one_hot_targets, solve, with_constant
from calib_ebm.calibration.calibrator import (
    FIT_AGAIN,
    Affine,
    State,
    check_fit_half,
    check_name,
    check_option,
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
from calib_ebm.calibration.temperature import Temperature
from calib_ebm.errors import InputError

Notes = tuple[str, ...]


class Scaling:
    """What they share: a weight and a bias, found as the minimum of one convex problem."""

    name: ClassVar[str]
    called: ClassVar[str]
    """For a sentence."""
    options: ClassVar[tuple[str, ...]]
    """Names of the constructor's arguments, which are attributes and non-negative numbers."""
    of_log_probs: ClassVar[bool] = False
    """Its features are logarithms of probabilities, which no affine map of logits gives."""
    temperature: ClassVar[None] = None

    def __init__(self) -> None:
        for option in self.options:
            value = float(getattr(self, option))
            check_option(option, value, "a number from 0", value >= 0)
        self.notes: tuple[str, ...] = ()
        self._fitted: Affine | None = None
        self._scale = 1.0
        self._texts = 0

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Find weight and bias on logits and labels that are reported nowhere.

        Raises:
            InputError: for fewer than two texts, labels of one class only, or probabilities in
                place of logits.
        """
        check_fit_half(self.called.capitalize(), logits_NC, labels_N)
        logits_NC, labels_N = logits_NC.detach().cpu().double(), labels_N.cpu().long()
        texts, classes = logits_NC.shape
        self._texts = texts
        self._scale, notes = self._fit_scale(logits_NC, labels_N)
        no_bias_C1 = torch.zeros(classes, 1, dtype=torch.float64)
        start_CD = torch.cat((torch.eye(classes, dtype=torch.float64), no_bias_C1), dim=1)
        free_CD = self._free(classes)
        problem = Problem(
            with_constant(self._features(logits_NC)),
            one_hot_targets(labels_N, classes),
            start_CD,
            free_CD,
            self._ridge(texts, classes),
        )
        weight_CD, found = solve(problem)
        self._fitted = Affine(weight_CD[:, :classes], weight_CD[:, classes])
        self.notes = (
            *notes,
            *(() if found else ("The calibrator's minimum was not reached exactly.",)),
            *_missing_note(missing_classes(labels_N, classes)),
            *few_texts_note(int(free_CD.sum()), texts),
            *self._sign_note(),
        )
        return self

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """The softmax of the mapped logits, in float64."""
        fitted = self._map()
        check_logits(logits_NC)
        if logits_NC.shape[1] != len(fitted.bias_C):
            raise InputError(
                f"Logits of {logits_NC.shape[1]} classes.",
                f"{len(fitted.bias_C)} classes, as the calibrator was fitted on",
                FIT_AGAIN,
            )
        return fitted(self._features(logits_NC.detach().cpu().double())).softmax(dim=1)

    def affine(self, classes: int) -> Affine | None:
        """Its weight and bias, where it acts on the logits themselves; else None."""
        fitted = self._map()
        if self.of_log_probs:
            return None
        return Affine(fitted.weight_CC * self._scale, fitted.bias_C)

    @property
    def words(self) -> str:
        """Its name and what it holds."""
        fitted = self._map()
        slopes, biases = fitted.weight_CC.diagonal() * self._scale, fitted.bias_C
        return f"{self.called} (slopes {spread(slopes)}; biases {spread(biases)})"

    def state(self) -> State:
        """Weight, bias and options."""
        fitted = self._map()
        return {
            "name": self.name,
            **{option: getattr(self, option) for option in self.options},
            "texts": self._texts,
            "scale": self._scale,
            "weight": fitted.weight_CC.tolist(),
            "bias": fitted.bias_C.tolist(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted one that wrote this state."""
        check_name(state, cls.name)
        calibrator = cls(**{option: number(state, option) for option in cls.options})
        weight_CC, bias_C = numbers(state, "weight"), numbers(state, "bias")
        classes = len(bias_C) if bias_C.ndim == 1 else 0
        if classes < 2 or weight_CC.shape != (classes, classes):
            raise InputError(
                f"The saved calibrator's weight is {tuple(weight_CC.shape)}, its bias "
                f"{tuple(bias_C.shape)}.",
                "C by C and C numbers, C at least 2",
                FIT_AGAIN,
            )
        calibrator._texts, calibrator._scale = count_of(state, "texts"), number(state, "scale")
        if not 0 < calibrator._scale < float("inf"):
            given = f"The saved calibrator has scale={calibrator._scale}."
            raise InputError(given, "a positive number", FIT_AGAIN)
        calibrator._fitted = Affine(weight_CC, bias_C)
        calibrator.notes = notes_of(state)
        return calibrator

    def _map(self) -> Affine:
        if self._fitted is None:
            raise not_fitted(self.name)
        return self._fitted

    def _fit_scale(self, logits_NC: Tensor, labels_N: Tensor) -> tuple[float, Notes]:
        """1/T, by which logits are multiplied first, and what is to be said of that T."""
        scaled = Temperature().fit(logits_NC, labels_N)
        return 1 / scaled.temperature, scaled.notes

    def _features(self, logits_NC: Tensor) -> Tensor:
        """What weight and bias are applied to."""
        return logits_NC * self._scale

    def _free(self, classes: int) -> Tensor:
        """Which entries are fitted, C by C + 1, the bias behind."""
        raise NotImplementedError  # an abstract method: every entry of CALIBRATORS defines it

    def _ridge(self, texts: int, classes: int) -> Tensor:
        """The penalty of each entry."""
        raise NotImplementedError  # likewise

    def _sign_note(self) -> tuple[str, ...]:
        negative = (self._map().weight_CC.diagonal() < 0).nonzero()[:, 0].tolist()
        if not negative:
            return ()
        return (
            f"The slope of class {', '.join(map(str, negative))} is negative: a higher logit makes "
            "the class less probable. Look at the labels, or take calibrator=temperature.",
        )


class VectorScaling(Scaling):
    """A slope and a bias for each class, by NLL.

    Args:
        ridge: pull towards temperature scaling, in nats; so small that it is felt only where the
            labels set no bound, as with classes that can be told apart without error.
    """

    name = "vector"
    called = "vector scaling"
    options = ("ridge",)

    def __init__(self, ridge: float = 1e-6) -> None:
        self.ridge = ridge
        super().__init__()

    def _free(self, classes: int) -> Tensor:
        return diagonal_and_bias(classes)

    def _ridge(self, texts: int, classes: int) -> Tensor:
        return torch.full((classes, classes + 1), self.ridge, dtype=torch.float64)


class MatrixScaling(VectorScaling):
    """A full matrix and a bias for each class, by NLL; C (C + 1) numbers overfit a small fit half.

    Args:
        ridge: as of `VectorScaling`.
    """

    name = "matrix"
    called = "matrix scaling"

    def _free(self, classes: int) -> Tensor:
        return torch.ones(classes, classes + 1, dtype=torch.float64)


def diagonal_and_bias(classes: int) -> Tensor:
    """1 on the diagonal of the weight and on the bias, C by C + 1."""
    return with_bias(torch.eye(classes, dtype=torch.float64), 1.0)


def with_bias(weight_CC: Tensor, bias: float) -> Tensor:
    """A weight and, in a last column, the same number for every bias, C by C + 1."""
    return torch.cat((weight_CC, torch.full_like(weight_CC[:, :1], bias)), dim=1)


def _missing_note(missing: list[int]) -> tuple[str, ...]:
    if not missing:
        return ()
    return (
        f"The fit half holds no text of class {', '.join(map(str, missing))}: it is taken to be "
        "improbable. Give a larger fit half, or take calibrator=temperature.",
    )
