"""Every estimate by its name in metrics.json: its value, and the same as sums to resample.

    cls/acc  cls/mcc  cls/f1                        the task's own
    cal/ece  cal/ece_classwise  cal/ece_pooled      calibration errors, bins of equal width
    cal/ece_equal_mass  cal/ece_debiased_l2         top-label, bins of equal mass
    cal/ece_sweep  cal/smooth_ece  cal/ks           top-label, nothing to choose
    nll  brier                                      proper scores
    brier/reliability  brier/resolution  brier/uncertainty  brier/within
                                                    brier = first - second + third + fourth
    selective/aurc  selective/e_aurc                what abstaining is worth

One row per estimate serves the value, its interval (`intervals.py`), its floor (`floors.py`) and
the comparison of two methods (`compare.py`), so that none of them can mean another figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration import accuracy, brier, errors, ordered, selective, smooth
from calib_ebm.calibration.ordered import Ordered
from calib_ebm.calibration.resample import Entries, Sums, count_sums, gap_sums, mean_sums
from calib_ebm.errors import InputError

Pure = Callable[[Tensor, Tensor], Tensor]
Value = Callable[[Tensor, Tensor, int], Tensor]
"""From probabilities, labels and the number of bins, which only some look at."""


@dataclass(frozen=True)
class LabelledSet:
    """N probabilities and labels, checked, and the sums that several estimates share."""

    probs_NC: Tensor
    labels_N: Tensor
    bins: int

    @cached_property
    def confidences(self) -> tuple[Tensor, Entries]:
        """The U distinct confidences; texts and right texts at each of them as 2 U sums."""
        confidence_U, group_N, right_N = ordered.group_confidences(self.probs_NC, self.labels_N)
        distinct, texts = len(confidence_U), len(group_N)
        entries = Entries(
            torch.arange(texts).repeat(2),
            torch.cat([group_N, group_N + distinct]),
            torch.cat([torch.ones_like(right_N), right_N]),
            2 * distinct,
        )
        return confidence_U, entries

    @cached_property
    def brier(self) -> Entries:
        """The sums of `BrierSums`, one after the other."""
        parts, cell_NC = brier.brier_entries(self.probs_NC, self.labels_N, self.bins)
        texts, classes = self.probs_NC.shape
        cells, kinds = classes * self.bins, len(parts)
        first_cell = cells * torch.arange(kinds)[:, None]
        return Entries(
            torch.arange(texts)[:, None].expand(texts, classes).reshape(-1).repeat(kinds),
            (cell_NC.reshape(1, -1) + first_cell).reshape(-1),
            torch.cat([part_NC.reshape(-1) for part_NC in parts]),
            kinds * cells,
        )


class NamedEstimate(NamedTuple):
    """An estimate of N probabilities and labels."""

    value: Value
    sums: Callable[[LabelledSet], Sums]
    """The same for the bootstrap."""
    of_columns: Callable[[Ordered, int], Tensor] | None = None
    """The same of `Ordered` columns, where it is made from them."""


def _mean(pure: Pure, each: Pure) -> NamedEstimate:
    return NamedEstimate(
        lambda p_NC, y_N, _: pure(p_NC, y_N),
        lambda given: mean_sums(each(given.probs_NC, given.labels_N)),
    )


def _counted(pure: Pure, finish: Callable[[accuracy.ClassCounts], Tensor]) -> NamedEstimate:
    return NamedEstimate(
        lambda p_NC, y_N, _: pure(p_NC, y_N),
        lambda given: count_sums(given.probs_NC, given.labels_N, finish),
    )


def _gap(value: Value, pairs: Callable[[Tensor, Tensor], errors.Pairs]) -> NamedEstimate:
    def sums(given: LabelledSet) -> Sums:
        texts = len(given.probs_NC)
        return gap_sums(pairs(given.probs_NC, given.labels_N), texts, given.bins)

    return NamedEstimate(value, sums)


def _ordered(value: Value, of_columns: Callable[[Ordered, int], Tensor]) -> NamedEstimate:
    def sums(given: LabelledSet) -> Sums:
        confidence_U, entries = given.confidences

        def finish(sums_SR: Tensor) -> Tensor:
            count_RU, right_RU = sums_SR.T.contiguous().split(len(confidence_U), dim=1)
            return of_columns(Ordered(confidence_U, count_RU, right_RU), given.bins)

        return Sums(entries, finish)

    return NamedEstimate(value, sums, of_columns)


def _brier(part: Callable[[brier.BrierParts], Tensor]) -> NamedEstimate:
    def sums(given: LabelledSet) -> Sums:
        classes = given.probs_NC.shape[1]

        def finish(sums_SR: Tensor) -> Tensor:
            blocks = sums_SR.T.reshape(-1, len(brier.BrierSums._fields), classes, given.bins)
            return part(brier.parts_of(brier.BrierSums(*blocks.unbind(dim=1))))

        return Sums(given.brier, finish)

    return NamedEstimate(
        lambda p_NC, y_N, bins: part(brier.brier_parts(p_NC, y_N, bins)),
        sums,
    )


CLASS_METRICS: dict[str, NamedEstimate] = {
    "cls/acc": _mean(accuracy.accuracy, accuracy.correct_each),
    "cls/mcc": _counted(accuracy.mcc, accuracy.mcc_from_counts),
    "cls/f1": _counted(accuracy.f1, accuracy.f1_from_counts),
}
"""The task's own metrics; a task record leaves out the `cls/`."""
CALIBRATION_ERRORS: dict[str, NamedEstimate] = {
    "cal/ece": _gap(errors.ece_top_label, errors.top_label_pairs),
    "cal/ece_classwise": _gap(errors.ece_classwise, errors.classwise_pairs),
    "cal/ece_pooled": _gap(errors.ece_pooled, errors.pooled_pairs),
    "cal/ece_equal_mass": _ordered(ordered.ece_equal_mass, ordered.equal_mass_each),
    "cal/ece_debiased_l2": _ordered(errors.ece_debiased_l2, ordered.debiased_each),
    "cal/ece_sweep": _ordered(
        lambda p_NC, y_N, _: ordered.ece_sweep(p_NC, y_N),
        lambda columns, _: ordered.sweep_each(columns),
    ),
    "cal/smooth_ece": _ordered(
        lambda p_NC, y_N, _: smooth.smooth_ece(p_NC, y_N),
        lambda columns, _: smooth.smooth_each(columns),
    ),
    "cal/ks": _ordered(
        lambda p_NC, y_N, _: ordered.ks_error(p_NC, y_N),
        lambda columns, _: ordered.ks_each(columns),
    ),
}
"""Each of these has a floor, and so has brier/reliability."""
SCORES: dict[str, NamedEstimate] = {
    "nll": _mean(errors.nll, errors.nll_each),
    "brier": _mean(errors.brier, errors.brier_each),
    "brier/reliability": _brier(lambda parts: parts.reliability),
    "brier/resolution": _brier(lambda parts: parts.resolution),
    "brier/uncertainty": _brier(lambda parts: parts.uncertainty),
    "brier/within": _brier(lambda parts: parts.within),
}
SELECTION: dict[str, NamedEstimate] = {
    "selective/aurc": _ordered(
        lambda p_NC, y_N, _: selective.aurc(p_NC, y_N),
        lambda columns, _: selective.aurc_each(columns),
    ),
    "selective/e_aurc": _ordered(
        lambda p_NC, y_N, _: selective.e_aurc(p_NC, y_N),
        lambda columns, _: selective.e_aurc_each(columns),
    ),
}
ESTIMATES: dict[str, NamedEstimate] = {
    **CLASS_METRICS,
    **CALIBRATION_ERRORS,
    **SCORES,
    **SELECTION,
}


def named_estimate(name: str) -> NamedEstimate:
    """The estimate of a name in metrics.json; a task's metric may go without its `cls/`.

    Raises:
        InputError: for any other name.
    """
    for known in (name, f"cls/{name}"):
        if known in ESTIMATES:
            return ESTIMATES[known]
    raise InputError(f"There is no estimate {name!r}.", " | ".join(ESTIMATES), "Take one of these.")
