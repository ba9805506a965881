"""Temperature scaling: softmax(logits / T), with the T that makes held-out labels most likely.

In b = 1/T the mean negative log-likelihood

    f(b)   = mean_n logsumexp_c(b z_nc) - b z_n,label
    f'(b)  = mean_n E_p[z_n] - z_n,label
    f''(b) = mean_n Var_p[z_n]                              p = softmax(b z_n)

is convex, so its minimum between two bounds is the one zero of f', or a bound. Guo et al., ICML
2017. The predicted class never changes, only how sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor

from calib_ebm.calibration.calibrator import State
from calib_ebm.calibration.checks import SUM_TOLERANCE, check_logits
from calib_ebm.errors import InputError


class NoCalibration:
    """The classifier's own softmax: what a calibrator is compared with."""

    name: ClassVar[str] = "none"
    temperature: ClassVar[float] = 1.0
    at_bound: ClassVar[bool] = False
    notes: ClassVar[tuple[str, ...]] = ()

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Check the input; there is nothing to fit."""
        check_logits(logits_NC, labels_N)
        return self

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """The softmax in float64."""
        check_logits(logits_NC)
        return logits_NC.double().softmax(dim=1)

    def state(self) -> State:
        """Its name."""
        return {"name": self.name}

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """A new one, if the state is of one."""
        _check_name(state, cls.name)
        return cls()


class Temperature:
    """One temperature for all classes, by exact minimum of the fit half's NLL.

    Args:
        lower: the smallest temperature allowed. It is the best one for labels that the logits
            predict without error.
        upper: the largest. It is the best one for logits that do not predict the labels at all.
    """

    name: ClassVar[str] = "temperature"

    def __init__(self, lower: float = 0.01, upper: float = 100.0) -> None:
        if not 0 < lower < upper < math.inf:
            given = f"Temperatures from {lower} to {upper}."
            raise InputError(given, "0 < lower < upper", "Leave them at .01 and 100.")
        self.lower = lower
        self.upper = upper
        self.at_bound = False
        self.notes: tuple[str, ...] = ()
        self._temperature: float | None = None

    @property
    def temperature(self) -> float:
        """The fitted T: above 1 the classifier was overconfident, below 1 it was too shy."""
        if self._temperature is None:
            raise InputError(
                "This temperature was not fitted.",
                "a calibrator after fit() or from_state()",
                "Fit it on the logits and labels of the fit half.",
            )
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
        check_logits(logits_NC, labels_N)
        _check_enough(logits_NC, labels_N)
        likelihood = _Likelihood(logits_NC.detach().cpu().double(), labels_N.cpu().long())
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

    def state(self) -> State:
        """The fitted temperature and its bounds."""
        return {
            "name": self.name,
            "temperature": self.temperature,
            "lower": self.lower,
            "upper": self.upper,
            "at_bound": self.at_bound,
            "note": " ".join(self.notes),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted one that wrote this state."""
        _check_name(state, cls.name)
        calibrator = cls(_number(state, "lower"), _number(state, "upper"))
        temperature = _number(state, "temperature")
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
    """Slope and curvature of the mean NLL as a function of b = 1/T."""

    def __init__(self, logits_NC: Tensor, labels_N: Tensor) -> None:
        self.logits_NC = logits_NC - logits_NC.amax(dim=1, keepdim=True)
        self.label_N = self.logits_NC.gather(1, labels_N[:, None])[:, 0]

    def slope_and_curvature(self, inverse: float) -> tuple[float, float]:
        """f'(b) and f''(b)."""
        probs_NC = (inverse * self.logits_NC).softmax(dim=1)
        mean_N = (probs_NC * self.logits_NC).sum(dim=1)
        deviation_NC = self.logits_NC - mean_N[:, None]
        variance_N = (probs_NC * deviation_NC.square()).sum(dim=1)
        return (mean_N - self.label_N).mean().item(), variance_N.mean().item()

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


def _check_enough(logits_NC: Tensor, labels_N: Tensor) -> None:
    classes_seen = int((labels_N.bincount() > 0).sum())
    if len(labels_N) < 2 or classes_seen < 2:
        raise InputError(
            f"A temperature is to be fitted on {len(labels_N)} texts of {classes_seen} class(es).",
            "at least two texts, of at least two classes",
            "Give a larger fit half, or set calibrator=none.",
        )
    rows = logits_NC.double()
    sums_to_one = bool(((rows.sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all() & (rows >= 0).all())
    # Whole numbers that sum to one are a hand-made example; neither kind is whole in earnest.
    if sums_to_one and bool((rows != rows.round()).any()):
        raise InputError(
            "The logits of every text are from 0 to 1 and sum to one: these are probabilities.",
            "the classifier's outputs before softmax",
            "Give the logits, or the logarithms of the probabilities.",
        )


def _bound_note(temperature: float, lower: float, texts: int) -> str:
    if temperature == lower:
        reason = (
            "the logits predict the fit half's labels without error, and a lower one fits better"
        )
    else:
        reason = "the logits do not predict the labels of the fit half"
    return f"The temperature fitted on {texts} texts is at its bound {temperature:g}: {reason}."


def _check_name(state: Mapping[str, object], name: str) -> None:
    if state.get("name") != name:
        given = f"The saved calibrator is {state.get('name')!r}."
        raise InputError(given, repr(name), "Load it with the class that wrote it.")


def _number(state: Mapping[str, object], key: str) -> float:
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        given = f"The saved calibrator has {key}={value!r}."
        raise InputError(given, "a number", "Fit the calibrator again.")
    return float(value)
