"""Every estimate by its name in metrics.json: its value, and the same as sums to resample.

    cls/acc  cls/mcc  cls/f1                        the task's own
    cal/ece  cal/ece_classwise  cal/ece_pooled      calibration errors, with a floor each
    nll  brier                                      proper scores

One row per estimate serves the value, its interval (`intervals.py`), its floor (`floors.py`) and
the comparison of two methods (`compare.py`), so that none of them can mean another figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from calib_ebm.calibration import errors
from calib_ebm.calibration.resample import Sums, count_sums, gap_sums, mean_sums
from calib_ebm.errors import InputError

Value = Callable[[Tensor, Tensor, int], Tensor]
"""From probabilities, labels and the number of bins, which only calibration errors look at."""


class NamedEstimate(NamedTuple):
    """An estimate of N probabilities and labels."""

    value: Value
    sums: Callable[[Tensor, Tensor, int], Sums]
    """The same, unchecked, for the bootstrap."""
    higher_is_better: bool = False


def _mean(
    pure: Callable[[Tensor, Tensor], Tensor],
    each: Callable[[Tensor, Tensor], Tensor],
    higher: bool = False,
) -> NamedEstimate:
    return NamedEstimate(
        lambda p_NC, y_N, _: pure(p_NC, y_N),
        lambda p_NC, y_N, _: mean_sums(each(p_NC, y_N)),
        higher,
    )


def _counted(
    pure: Callable[[Tensor, Tensor], Tensor], finish: Callable[[errors.ClassCounts], Tensor]
) -> NamedEstimate:
    return NamedEstimate(
        lambda p_NC, y_N, _: pure(p_NC, y_N),
        lambda p_NC, y_N, _: count_sums(p_NC, y_N, finish),
        True,
    )


def _gap(value: Value, pairs: Callable[[Tensor, Tensor], errors.Pairs]) -> NamedEstimate:
    return NamedEstimate(value, lambda p_NC, y_N, bins: gap_sums(pairs(p_NC, y_N), len(p_NC), bins))


CLASS_METRICS: dict[str, NamedEstimate] = {
    "cls/acc": _mean(errors.accuracy, errors.correct_each, higher=True),
    "cls/mcc": _counted(errors.mcc, errors.mcc_from_counts),
    "cls/f1": _counted(errors.f1, errors.f1_from_counts),
}
"""The task's own metrics; a task record leaves out the `cls/`."""
CALIBRATION_ERRORS: dict[str, NamedEstimate] = {
    "cal/ece": _gap(errors.ece_top_label, errors.top_label_pairs),
    "cal/ece_classwise": _gap(errors.ece_classwise, errors.classwise_pairs),
    "cal/ece_pooled": _gap(errors.ece_pooled, errors.pooled_pairs),
}
SCORES: dict[str, NamedEstimate] = {
    "nll": _mean(errors.nll, errors.nll_each),
    "brier": _mean(errors.brier, errors.brier_each),
}
ESTIMATES: dict[str, NamedEstimate] = {**CLASS_METRICS, **CALIBRATION_ERRORS, **SCORES}


def named_estimate(name: str) -> NamedEstimate:
    """The estimate of a name in metrics.json; a task's metric may go without its `cls/`.

    Raises:
        InputError: for any other name.
    """
    for known in (name, f"cls/{name}"):
        if known in ESTIMATES:
            return ESTIMATES[known]
    raise InputError(f"There is no estimate {name!r}.", " | ".join(ESTIMATES), "Take one of these.")
