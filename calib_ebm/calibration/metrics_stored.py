"""The estimators that need every prediction at once, as torchmetrics.

Bins of equal mass, the sweep, the order of confidences and ranks across two sets are no functions
of a fixed number of sums, so these metrics keep what they are given: memory grows with the texts
(8 (C + 1) bytes each in float64), and processes gather all of it. Values are those of the pure
functions on all texts at once. Every process must have seen a text before `compute`; without any
text the value is NaN.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from calib_ebm.calibration import errors, ood, ordered, selective
from calib_ebm.calibration.bins import Norm
from calib_ebm.calibration.checks import check_bins, check_choice, check_predictions, check_scores
from calib_ebm.errors import InputError

Kind = Literal["top_label", "classwise", "pooled"]
"""What is binned against what; see `errors.py`."""
_ECES = {
    "top_label": errors.ece_top_label,
    "classwise": errors.ece_classwise,
    "pooled": errors.ece_pooled,
}
_PAIRS = {
    "top_label": errors.top_label_pairs,
    "classwise": errors.classwise_pairs,
    "pooled": errors.pooled_pairs,
}


class _Stored(Metric):
    """A metric of two columns of everything it was given."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Names of their own, as in metrics.py.
        self._columns = tuple(f"{type(self).__name__.lower()}_{part}" for part in ("what", "label"))
        for name in self._columns:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def _keep(self, what: Tensor, label_B: Tensor) -> None:
        for name, value in zip(self._columns, (what, label_B), strict=True):
            getattr(self, name).append(value.detach())

    def _kept(self) -> tuple[Tensor, Tensor] | None:
        columns = [getattr(self, name) for name in self._columns]
        if any(isinstance(column, list) and not column for column in columns):
            return None
        what, label_N = (dim_zero_cat(column) for column in columns)
        return what, label_N


class _OfPredictions(_Stored):
    """A figure of all probabilities and labels."""

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """The pure function."""
        raise NotImplementedError  # an abstract method: each class below defines it

    def update(self, probs_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch of probabilities and labels."""
        check_predictions(probs_BC, labels_B)
        self._keep(probs_BC.double(), labels_B.long())

    def compute(self) -> Tensor:
        """The figure of all texts so far."""
        kept = self._kept()
        return torch.tensor(torch.nan, dtype=torch.float64) if kept is None else self.figure(*kept)


class EqualMassECE(_OfPredictions):
    """A calibration error with bins of equal mass, of any kind and norm."""

    def __init__(
        self, bins: int = 20, kind: Kind = "top_label", norm: Norm = "l1", **kwargs: Any
    ) -> None:
        check_bins(bins)
        check_choice("kind", kind, get_args(Kind))
        check_choice("norm", norm, get_args(Norm))
        super().__init__(**kwargs)
        self.bins = bins
        self.kind: Kind = kind
        self.norm: Norm = norm

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """With edges at the probabilities of all texts."""
        ece = _ECES[self.kind]
        return ece(probs_NC, labels_N, self.bins, binning="mass", norm=self.norm)


class DebiasedECE(_OfPredictions):
    """`ece_debiased_l2` over batches."""

    def __init__(self, bins: int = 20, kind: Kind = "top_label", **kwargs: Any) -> None:
        check_bins(bins)
        check_choice("kind", kind, get_args(Kind))
        super().__init__(**kwargs)
        self.bins = bins
        self.kind: Kind = kind

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """With edges at the probabilities of all texts."""
        return errors.ece_debiased_l2(probs_NC, labels_N, self.bins, pairs=_PAIRS[self.kind])


class SweepECE(_OfPredictions):
    """`ece_sweep` over batches."""

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """With as many bins as keep all texts' frequencies rising."""
        return ordered.ece_sweep(probs_NC, labels_N)


class KSError(_OfPredictions):
    """`ks_error` over batches."""

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """Over all texts by confidence."""
        return ordered.ks_error(probs_NC, labels_N)


class AURC(_OfPredictions):
    """`aurc` over batches."""

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """Over all texts by confidence."""
        return selective.aurc(probs_NC, labels_N)


class ExcessAURC(_OfPredictions):
    """`e_aurc` over batches."""

    def figure(self, probs_NC: Tensor, labels_N: Tensor) -> Tensor:
        """Over all texts by confidence."""
        return selective.e_aurc(probs_NC, labels_N)


class _OfTwoKinds(_Stored):
    """A figure of scores inside and outside of the model's distribution."""

    def figure(self, score_in_N: Tensor, score_out_M: Tensor) -> Tensor:
        """The pure function."""
        raise NotImplementedError  # an abstract method: each class below defines it

    def update(self, score_B: Tensor, inside_B: Tensor) -> None:
        """Add a batch of scores (high means inside) and whether each text is from inside."""
        check_scores(score_B, "scores")
        if inside_B.dtype != torch.bool or inside_B.shape != score_B.shape:
            raise InputError(
                f"What is inside is told by {inside_B.dtype} of shape {tuple(inside_B.shape)}.",
                f"true or false for each of {len(score_B)} scores",
                "Give torch.ones(len(score), dtype=torch.bool) for the model's own texts.",
            )
        self._keep(score_B.double(), inside_B)

    def compute(self) -> Tensor:
        """The figure of all texts so far; NaN while one of the two kinds is missing."""
        kept = self._kept()
        if kept is None or kept[1].all() or not kept[1].any():
            return torch.tensor(torch.nan, dtype=torch.float64)
        score, inside = kept
        return self.figure(score[inside], score[~inside])


class OutOfDistributionAUROC(_OfTwoKinds):
    """`ood.auroc` over batches."""

    higher_is_better = True

    def figure(self, score_in_N: Tensor, score_out_M: Tensor) -> Tensor:
        """Ties count half."""
        return ood.auroc(score_in_N, score_out_M)


class OutOfDistributionFPR(_OfTwoKinds):
    """`ood.fpr_at_tpr` over batches, at 95% TPR."""

    def figure(self, score_in_N: Tensor, score_out_M: Tensor) -> Tensor:
        """Of those outside, the share let in."""
        return ood.fpr_at_tpr(score_in_N, score_out_M)
