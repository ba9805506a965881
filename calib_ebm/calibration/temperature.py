"""Temperature scaling: softmax(logits / T), with the T that makes held-out labels most likely.

In b = 1/T the mean negative log-likelihood

    f(b)   = mean_n logsumexp_c(b z_nc) - b z_n,label
    f'(b)  = mean_n E_p[z_n] - z_n,label
    f''(b) = mean_n Var_p[z_n]                              p = softmax(b z_n)

is convex, so its minimum between two bounds is the one zero of f', or a bound. Guo et al., ICML
2017. The predicted class never changes, only how sure it is.

Ten labels that the logits happen to predict without error have no best T: the colder, the better.
A prior that says, with the weight of k texts, that the classifier is right as it is adds

    k (b - 1 - log b)        slope k (1 - 1/b), curvature k / b^2

to the sum over texts: convex, least at T = 1, without bound on either side (a Gamma density of b,
whose mode is 1). Among many texts it is not felt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from calib_ebm.calibration.calibrator import (
    Affine,
    State,
    check_fit_half,
    check_name,
    not_fitted,
    number,
)
from calib_ebm.calibration.checks import check_logits
from calib_ebm.errors import InputError

LOWER, UPPER = 0.01, 100.0
"""Between which a temperature lies, unless others are given."""


class NoCalibration:
    """The classifier's own softmax: what a calibrator is compared with."""

    name: ClassVar[str] = "none"
    temperature: ClassVar[float] = 1.0
    at_bound: ClassVar[bool] = False
    notes: ClassVar[tuple[str, ...]] = ()

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Check the input, which may be empty; there is nothing to fit."""
        if len(labels_N):
            check_logits(logits_NC, labels_N)
        return self

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """The softmax in float64."""
        check_logits(logits_NC)
        return logits_NC.double().softmax(dim=1)

    @property
    def words(self) -> str:
        """Its name."""
        return "no calibration"

    def affine(self, classes: int) -> Affine:
        """The identity."""
        return _scaled_identity(classes, 1.0)

    def state(self) -> State:
        """Its name."""
        return {"name": self.name}

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """A new one, if the state is of one."""
        check_name(state, cls.name)
        return cls()


class Temperature:
    """One temperature for all classes, by exact minimum of the fit half's NLL.

    Args:
        lower: the smallest temperature allowed. It is the best one for labels that the logits
            predict without error.
        upper: the largest. It is the best one for logits that do not predict the labels at all.
        prior: how many texts' weight it has that T = 1 is right; 0 is the plain likelihood.
    """

    name: ClassVar[str] = "temperature"

    def __init__(self, lower: float = LOWER, upper: float = UPPER, prior: float = 0.0) -> None:
        if not 0 < lower < upper < math.inf:
            given = f"Temperatures from {lower} to {upper}."
            raise InputError(given, "0 < lower < upper", "Leave them at .01 and 100.")
        if not 0 <= prior < math.inf:
            given = f"The temperature's prior is {prior}."
            raise InputError(given, "a number of texts, 0 or more", "Set calibrator.prior=4, or 0.")
        self.lower = lower
        self.upper = upper
        self.prior = prior
        self.at_bound = False
        self.notes: tuple[str, ...] = ()
        self._temperature: float | None = None

    @property
    def temperature(self) -> float:
        """The fitted T: above 1 the classifier was overconfident, below 1 it was too shy."""
        if self._temperature is None:
            raise not_fitted(self.name)
        return self._temperature

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Find T on logits and labels that are reported nowhere.

        Args:
            logits_NC: outputs before softmax, of the model in eval mode; any floating-point type.
            labels_N: the labels of the N texts.

        Raises:
            InputError: for fewer than two rows, labels of one class only, or probabilities in
                place of logits.
        """
        check_fit_half("A temperature", logits_NC, labels_N)
        logits_NC, labels_N = logits_NC.detach().cpu().double(), labels_N.cpu().long()
        likelihood = _Likelihood(logits_NC, labels_N, self.prior)
        temperature = likelihood.best_temperature(self.lower, self.upper)
        self.at_bound = temperature in (self.lower, self.upper)
        self.notes = ()
        if temperature is None:
            self.notes = ("All logits of a text are equal, so no temperature matters; left at 1.",)
        elif self.at_bound:
            self.notes = (_bound_note(temperature, self.lower, len(labels_N)),)
        self._temperature = 1.0 if temperature is None else temperature
        return self

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """softmax(logits / T) in float64."""
        temperature = self.temperature
        check_logits(logits_NC)
        return (logits_NC.double() / temperature).softmax(dim=1)

    @property
    def words(self) -> str:
        """Its name and T."""
        return f"temperature scaling (T = {self.temperature:.3f})"

    def affine(self, classes: int) -> Affine:
        """Every logit divided by T."""
        return _scaled_identity(classes, 1 / self.temperature)

    def state(self) -> State:
        """The fitted temperature and its bounds."""
        return {
            "name": self.name,
            "temperature": self.temperature,
            "lower": self.lower,
            "upper": self.upper,
            "prior": self.prior,
            "at_bound": self.at_bound,
            "note": " ".join(self.notes),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted one that wrote this state."""
        check_name(state, cls.name)
        # One that was saved by an earlier version had none.
        prior = number(state, "prior") if "prior" in state else 0.0
        calibrator = cls(number(state, "lower"), number(state, "upper"), prior)
        temperature = number(state, "temperature")
        if not calibrator.lower <= temperature <= calibrator.upper:
            raise InputError(
                f"The saved temperature is {temperature}.",
                f"{calibrator.lower} to {calibrator.upper}, its own bounds",
                "Fit the calibrator again.",
            )
        calibrator._temperature = temperature
        calibrator.at_bound = state.get("at_bound") is True
        note = state.get("note")
        calibrator.notes = (note,) if isinstance(note, str) and note else ()
        return calibrator


class _Likelihood:
    """Slope and curvature of the mean NLL, with its prior, as a function of b = 1/T."""

    def __init__(self, logits_NC: Tensor, labels_N: Tensor, prior: float) -> None:
        self.prior = prior / len(labels_N)
        self.logits_NC = logits_NC - logits_NC.amax(dim=1, keepdim=True)
        self.label_N = self.logits_NC.gather(1, labels_N[:, None])[:, 0]

    def slope_and_curvature(self, inverse: float) -> tuple[float, float]:
        """f'(b) and f''(b)."""
        probs_NC = (inverse * self.logits_NC).softmax(dim=1)
        mean_N = (probs_NC * self.logits_NC).sum(dim=1)
        deviation_NC = self.logits_NC - mean_N[:, None]
        variance_N = (probs_NC * deviation_NC.square()).sum(dim=1)
        slope = (mean_N - self.label_N).mean().item() + self.prior * (1 - 1 / inverse)
        return slope, variance_N.mean().item() + self.prior / inverse**2

    def best_temperature(self, lower: float, upper: float) -> float | None:
        """The one between the bounds, or the bound itself; None if every one is as good."""
        if not self.logits_NC.any():
            return None
        if self.slope_and_curvature(1 / upper)[0] >= 0:
            return upper
        if self.slope_and_curvature(1 / lower)[0] <= 0:
            return lower
        return 1 / self._root(1 / upper, 1 / lower)

    def _root(self, low: float, high: float) -> float:
        """Where f' = 0, between its negative and its positive side, by safeguarded Newton steps."""
        inverse = min(max(1.0, low), high)
        for iteration in range(300):
            slope, curvature = self.slope_and_curvature(inverse)
            low, high = (inverse, high) if slope < 0 else (low, inverse)
            newton = inverse - slope / curvature if curvature > 0 else math.nan
            if abs(newton - inverse) <= 1e-12 * inverse:
                return newton
            # Far from the root Newton may creep, so that every third step halves the bracket.
            halve = iteration % 3 == 2 or not low <= newton <= high
            inverse = math.sqrt(low * high) if halve else newton
        return inverse


def _scaled_identity(classes: int, scale: float) -> Affine:
    identity_CC = torch.eye(classes, dtype=torch.float64)
    return Affine(scale * identity_CC, torch.zeros(classes, dtype=torch.float64))


def _bound_note(temperature: float, lower: float, texts: int) -> str:
    if temperature == lower:
        reason = (
            "the logits predict the fit half's labels without error, and a lower one fits better; "
            "calibrator.prior=4 keeps few labels from saying so much"
        )
    else:
        reason = "the logits do not predict the labels of the fit half"
    return f"The temperature fitted on {texts} texts is at its bound {temperature:g}: {reason}."
