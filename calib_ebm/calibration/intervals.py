"""Every estimate of a set with its interval, the floor beside each ECE, differences over seeds.

Bins of equal mass, the sweep's number of them and the smooth ECE's width are found anew in each
resample, as they would be on another set.

What the percentile interval of an ECE cannot say: a resample adds its own noise, so its ECEs are
pulled upwards and the interval never reaches zero, not even for a perfectly calibrated model;
there, in one set of thirty, even the estimate itself fell below it, and the interval is then
stretched to hold it. Whether there is any miscalibration at all is the p-value's to answer. In
simulations (confidences of mean .95, 138 to 10,000 texts) true ECEs of .03 and .05 lay in it 88 to
98 times of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from torch import Tensor

from calib_ebm.calibration import errors
from calib_ebm.calibration.checks import check_predictions
from calib_ebm.calibration.estimates import (
    CLASS_METRICS,
    ESTIMATES,
    LabelledSet,
    NamedEstimate,
)
from calib_ebm.calibration.floors import null_draws, p_value
from calib_ebm.calibration.resample import Sums, bootstrap, gap_sums, mean_sums
from calib_ebm.errors import InputError

LEVEL = 0.95
NORMAL_QUANTILE = 1.959964
"""Of a standard normal, two-sided at LEVEL."""


class Estimate(NamedTuple):
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float


def estimates_with_intervals(
    probs_NC: Tensor,
    labels_N: Tensor,
    metrics: Sequence[str] = ("acc",),
    *,
    bins: int = 20,
    resamples: int = 1000,
    seed: int = 0,
    truth_NC: Tensor | None = None,
) -> dict[str, Estimate]:
    """All figures of one set with 95% intervals, by the names they have in metrics.json.

    These are `cls/...` as asked for; the calibration errors, scores, terms of the Brier score and
    figures of selection of `estimates.py`; given the truth, `cal/true` and `cal/true_pointwise`.
    Each calibration error, and `brier/reliability`, has `.../floor` (the mean of its null
    distribution, between its 5% and 95% points) and `.../p_value` (with the interval that its
    simulation leaves). Values are exactly the pure functions'.

    Args:
        probs_NC: probabilities of N texts.
        labels_N: their labels.
        metrics: the task's own, of "acc", "mcc", "f1".
        bins: of the ECEs.
        resamples: of the bootstrap, and draws of the null distributions.
        seed: of generators of their own; the global one is left alone.
        truth_NC: the exact P(y|x), where it is known.

    Raises:
        InputError: for probabilities, labels or names that are none.
    """
    check_predictions(probs_NC, labels_N)
    if resamples < 2:
        given = f"resamples is {resamples}."
        raise InputError(given, "a whole number from 2", "Leave it at 1,000.")
    probs_NC, labels_N = probs_NC.detach().cpu(), labels_N.cpu()
    named = _of_labels(probs_NC, labels_N, metrics, bins)
    if truth_NC is not None:
        named |= _of_truth(probs_NC, truth_NC.cpu(), bins)
    sums = {name: each for name, (_, each) in named.items()}
    resampled = bootstrap(sums, len(probs_NC), resamples=resamples, seed=seed)
    null = null_draws(probs_NC, bins=bins, draws=resamples, seed=seed)
    estimates: dict[str, Estimate] = {}
    for name, (value, _) in named.items():
        estimates[name] = percentile_interval(value, resampled[name])
        if name in null:
            estimates[f"{name}/floor"] = _floor(null[name])
            estimates[f"{name}/p_value"] = _simulated(p_value(null[name], value), resamples)
    return estimates


def _of_labels(
    probs_NC: Tensor, labels_N: Tensor, metrics: Sequence[str], bins: int
) -> dict[str, tuple[float, Sums]]:
    """Each figure's value, and the same as sums to resample."""
    asked: dict[str, NamedEstimate] = {}
    for metric in metrics:
        if f"cls/{metric}" not in CLASS_METRICS:
            known = ", ".join(name.removeprefix("cls/") for name in CLASS_METRICS)
            given = f"The task asks for the metric {metric!r}."
            raise InputError(given, known, "Correct the task's list of metrics.")
        asked[f"cls/{metric}"] = CLASS_METRICS[f"cls/{metric}"]
    asked |= {name: each for name, each in ESTIMATES.items() if name not in CLASS_METRICS}
    given_set = LabelledSet(probs_NC, labels_N, bins)
    return {
        name: (each.value(probs_NC, labels_N, bins).item(), each.sums(given_set))
        for name, each in asked.items()
    }


def _of_truth(probs_NC: Tensor, truth_NC: Tensor, bins: int) -> dict[str, tuple[float, Sums]]:
    binned = errors.true_calibration_error(probs_NC, truth_NC, bins)
    pointwise = errors.pointwise_error(probs_NC, truth_NC)
    pairs = errors.true_pairs(probs_NC, truth_NC)
    return {
        "cal/true": (binned.item(), gap_sums(pairs, len(probs_NC), bins)),
        "cal/true_pointwise": (
            pointwise.item(),
            mean_sums(errors.pointwise_each(probs_NC, truth_NC)),
        ),
    }


def percentile_interval(value: float, resampled_R: Tensor) -> Estimate:
    """From the 2.5% to the 97.5% point of the resamples, stretched where the value lies outside."""
    low = resampled_R.quantile((1 - LEVEL) / 2).item()
    high = resampled_R.quantile((1 + LEVEL) / 2).item()
    return Estimate(value, min(low, value), max(high, value))


def _floor(null_R: Tensor) -> Estimate:
    """Mean of the null distribution, between its 5% and its 95% point."""
    low, high = null_R.quantile(0.05).item(), null_R.quantile(0.95).item()
    return Estimate(null_R.mean().item(), low, high)


def _simulated(share: float, draws: int) -> Estimate:
    """A share of simulated draws with Wilson's (1927) interval for the share of all draws."""
    square = NORMAL_QUANTILE**2 / draws
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(
    values_a: Sequence[float], values_b: Sequence[float], level: float = LEVEL
) -> Estimate:
    """Mean of a - b over seeds with Student's interval, mean +- t s / sqrt(n).

    Runs of one seed share data order and initial weights, so their difference varies less than
    either figure.

    >>> paired_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0]).value
    2.0
    """
    if len(values_a) != len(values_b) or len(values_a) < 2:
        raise InputError(
            f"{len(values_a)} values against {len(values_b)}.",
            "as many of one as of the other, paired by seed, and at least two pairs",
            "Compare runs of the same seeds; an interval needs two of them.",
        )
    if not all(map(math.isfinite, (*values_a, *values_b))):
        raise InputError("A value is not finite.", "numbers", "Leave out the run that failed.")
    differences = [a - b for a, b in zip(values_a, values_b, strict=True)]
    mean = fmean(differences)
    error = stdev(differences) / math.sqrt(len(differences))
    half = student_quantile(level, len(differences) - 1) * error
    return Estimate(mean, mean - half, mean + half)


def student_quantile(level: float, degrees: int) -> float:
    """The t that |T| stays below with probability `level`, for whole degrees of freedom.

    >>> round(student_quantile(0.95, 4), 3)
    2.776
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}.", "a number between 0 and 1", "Leave it at .95.")
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if _central_angle(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def student_central(t: float, degrees: int) -> float:
    """P(|T| < t) for whole degrees of freedom; one less it is a two-sided p-value.

    >>> round(student_central(2.776, 4), 3)
    0.95
    """
    return _central_angle(math.atan(t / math.sqrt(degrees)), degrees)


def _central_angle(theta: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(theta)): Abramowitz & Stegun 26.7.3 (odd), 26.7.4 (even)."""
    odd = degrees % 2
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
