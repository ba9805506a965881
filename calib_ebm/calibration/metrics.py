"""The estimators as torchmetrics: sums per batch, added up over batches and processes.

Each metric keeps a few float64 sums and nothing per text, so memory does not grow with the texts,
and its value is that of the pure function on all texts at once, however they were cut into batches
or spread over processes. `update` and `forward` take probabilities (float32 or float64 after
softmax), never logits, and check them. Every text must be seen by one process only: a sampler that
repeats texts to even out the ranks makes it wrong. Without any text the value is NaN (MCC: 0).
What cannot be had from sums, because the order of all texts matters, is in `metrics_stored.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from calib_ebm.calibration.accuracy import (
    ClassCounts,
    class_counts,
    correct_each,
    f1_from_counts,
    mcc_from_counts,
)
from calib_ebm.calibration.bins import (
    BinnedSums,
    Norm,
    binned_sums,
    equal_width_edges,
    gap_norm,
)
from calib_ebm.calibration.brier import BrierSums, brier_sums, parts_of
from calib_ebm.calibration.checks import check_bins, check_choice, check_predictions
from calib_ebm.calibration.errors import (
    Pairs,
    brier_each,
    classwise_pairs,
    nll_each,
    pooled_pairs,
    top_label_pairs,
)
from calib_ebm.calibration.smooth import CELLS, gap_nodes, smooth_from_nodes
from calib_ebm.errors import InputError


class _SummedMetric(Metric):
    """A metric over named float64 sums.

    The states' names start with the class's own: torchmetrics takes two metrics for one and the
    same whose states have equal names and, after the first batch, equal values (NLL and Brier of a
    perfect batch: 0), and from then on updates only the first of them.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self, shapes: dict[str, tuple[int, ...]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sums = tuple(shapes)
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(self._state(name), default=zeros, dist_reduce_fx="sum")

    def _state(self, name: str) -> str:
        return f"{type(self).__name__.lower()}_{name}"

    def _add(self, sums: Sequence[Tensor]) -> None:
        for name, value in zip(self._sums, sums, strict=True):
            setattr(self, self._state(name), getattr(self, self._state(name)) + value)

    def _totals(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, self._state(name)) for name in self._sums)


class _BinnedECE(_SummedMetric):
    """A calibration error from the binned sums of one or more groups of pairs."""

    higher_is_better = False

    def __init__(self, groups: int, bins: int, norm: Norm, **kwargs: Any) -> None:
        check_bins(bins)
        check_choice("norm", norm, get_args(Norm))
        super().__init__(dict.fromkeys(BinnedSums._fields, (groups, bins)), **kwargs)
        self.groups = groups
        self.bins = bins
        self.norm: Norm = norm

    def pairs(self, probs_BC: Tensor, labels_B: Tensor) -> Pairs:
        """What is binned against what."""
        raise NotImplementedError  # an abstract method: each class below defines it

    def update(self, probs_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch of probabilities and labels."""
        check_predictions(probs_BC, labels_B)
        probs_NG, outcomes_NG = self.pairs(probs_BC, labels_B)
        self._add(binned_sums(probs_NG, outcomes_NG, equal_width_edges(self.bins, probs_NG)))

    def compute(self) -> Tensor:
        """The calibration error of all texts so far."""
        return gap_norm(BinnedSums(*self._totals()), self.norm)


class TopLabelECE(_BinnedECE):
    """`ece_top_label` over batches."""

    def __init__(self, bins: int = 20, norm: Norm = "l1", **kwargs: Any) -> None:
        super().__init__(groups=1, bins=bins, norm=norm, **kwargs)

    def pairs(self, probs_BC: Tensor, labels_B: Tensor) -> Pairs:
        """Confidence against right or wrong."""
        return top_label_pairs(probs_BC, labels_B)


class ClasswiseECE(_BinnedECE):
    """`ece_classwise` over batches."""

    def __init__(self, classes: int, bins: int = 20, norm: Norm = "l1", **kwargs: Any) -> None:
        super().__init__(groups=classes, bins=bins, norm=norm, **kwargs)

    def pairs(self, probs_BC: Tensor, labels_B: Tensor) -> Pairs:
        """Each class's probability against whether it is the label."""
        _check_classes(probs_BC, self.groups)
        return classwise_pairs(probs_BC, labels_B)


class PooledECE(_BinnedECE):
    """`ece_pooled` over batches."""

    def __init__(self, bins: int = 20, norm: Norm = "l1", **kwargs: Any) -> None:
        super().__init__(groups=1, bins=bins, norm=norm, **kwargs)

    def pairs(self, probs_BC: Tensor, labels_B: Tensor) -> Pairs:
        """All probabilities in one histogram."""
        return pooled_pairs(probs_BC, labels_B)


class SmoothECE(_SummedMetric):
    """`smooth_ece` over batches: 1,025 sums, whatever the number of texts."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__({"nodes": (CELLS + 1,), "count": ()}, **kwargs)

    def update(self, probs_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch of probabilities and labels."""
        check_predictions(probs_BC, labels_B)
        count = torch.tensor(len(probs_BC), dtype=torch.float64, device=probs_BC.device)
        self._add((gap_nodes(probs_BC, labels_B), count))

    def compute(self) -> Tensor:
        """The smooth ECE of all texts so far."""
        nodes, count = self._totals()
        return smooth_from_nodes(nodes[None], count)[0]


class BrierDecomposition(_SummedMetric):
    """`brier_parts` over batches."""

    def __init__(self, classes: int, bins: int = 20, **kwargs: Any) -> None:
        check_bins(bins)
        super().__init__(dict.fromkeys(BrierSums._fields, (classes, bins)), **kwargs)
        self.classes = classes
        self.bins = bins

    def update(self, probs_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch of probabilities and labels."""
        check_predictions(probs_BC, labels_B)
        _check_classes(probs_BC, self.classes)
        self._add(brier_sums(probs_BC, labels_B, self.bins))

    def compute(self) -> dict[str, Tensor]:
        """The terms of all texts so far by name; torchmetrics knows dictionaries, not tuples."""
        return parts_of(BrierSums(*self._totals()))._asdict()


class _TextMean(_SummedMetric):
    """The mean of one number per text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__({"sum": (), "count": ()}, **kwargs)

    def each(self, probs_BC: Tensor, labels_B: Tensor) -> Tensor:
        """The number of each text."""
        raise NotImplementedError  # an abstract method: each class below defines it

    def update(self, probs_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch of probabilities and labels."""
        check_predictions(probs_BC, labels_B)
        values_B = self.each(probs_BC, labels_B)
        self._add((values_B.sum(), torch.ones_like(values_B).sum()))

    def compute(self) -> Tensor:
        """The mean over all texts so far."""
        total, count = self._totals()
        return total / count


class Accuracy(_TextMean):
    """`accuracy` over batches."""

    higher_is_better = True

    def each(self, probs_BC: Tensor, labels_B: Tensor) -> Tensor:
        """1 where right."""
        return correct_each(probs_BC, labels_B)


class NLL(_TextMean):
    """`nll` over batches, clipped as it says."""

    higher_is_better = False

    def each(self, probs_BC: Tensor, labels_B: Tensor) -> Tensor:
        """-log of the label's probability."""
        return nll_each(probs_BC, labels_B)


class Brier(_TextMean):
    """`brier` over batches, from 0 to 2."""

    higher_is_better = False

    def each(self, probs_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Squared distance from the one-hot label."""
        return brier_each(probs_BC, labels_B)


class _Counted(_SummedMetric):
    """A metric of the counts of labels, predictions and hits per class."""

    higher_is_better = True

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(dict.fromkeys(ClassCounts._fields, (classes,)), **kwargs)
        self.classes = classes

    def update(self, probs_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch of probabilities and labels."""
        check_predictions(probs_BC, labels_B)
        _check_classes(probs_BC, self.classes)
        self._add(class_counts(probs_BC, labels_B))


class MCC(_Counted):
    """`mcc` over batches."""

    def compute(self) -> Tensor:
        """Matthews correlation of all texts so far."""
        return mcc_from_counts(ClassCounts(*self._totals()))


class F1(_Counted):
    """`f1` over batches: of class 1 of two, else macro."""

    def compute(self) -> Tensor:
        """F1 of all texts so far."""
        return f1_from_counts(ClassCounts(*self._totals()))


def metric_collection(
    classes: int, metrics: Sequence[str] = ("acc",), bins: int = 20
) -> MetricCollection:
    """The task's own metrics as `cls/...`, then the ECEs as `cal/...`, `nll` and `brier`.

    Args:
        classes: number of classes C.
        metrics: of "acc", "mcc", "f1", as the task record names them.
        bins: of the ECEs.
    """
    known: dict[str, Metric] = {"acc": Accuracy(), "mcc": MCC(classes), "f1": F1(classes)}
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise InputError(
            f"The task asks for the metric {unknown[0]!r}.",
            ", ".join(known),
            "Correct the task's list of metrics.",
        )
    calibration: dict[str, Metric] = {
        "cal/ece": TopLabelECE(bins),
        "cal/ece_classwise": ClasswiseECE(classes, bins),
        "cal/ece_pooled": PooledECE(bins),
        "nll": NLL(),
        "brier": Brier(),
    }
    named: dict[str, Metric | MetricCollection] = {}
    named |= {f"cls/{name}": known[name] for name in metrics}
    named |= calibration
    # No groups: they are guessed from the first batch's values (see _SummedMetric).
    return MetricCollection(named, compute_groups=False)


def _check_classes(probs_BC: Tensor, classes: int) -> None:
    if probs_BC.shape[1] != classes:
        raise InputError(
            f"Probabilities over {probs_BC.shape[1]} classes for a metric of {classes}.",
            f"{classes} columns",
            "Build the metric with the task's number of classes.",
        )
