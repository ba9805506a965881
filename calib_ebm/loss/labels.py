"""The label losses: how logits are held against labels. One is chosen; each joins any energy.

    cross_entropy       -log p_y
    label_smoothing     -(1 - s) log p_y - s/C sum_c log p_c    Szegedy et al., CVPR 2016
    focal               -(1 - p_y)^gamma log p_y                Lin et al., ICCV 2017
    confidence_penalty  -log p_y - beta H(p)                    Pereyra et al., ICLR workshop 2017
    poscal              loss/poscal.py                          Jung et al., ACL 2020
    mixup               loss/mixup.py                           Zhang et al., ICLR 2018
    joint_mlm           -log p_y + loss/language.py             He, Chen & Zhu, ICLR 2023

p is the softmax of the logits, y the label, H the entropy. Each is a mean over texts, in nats, and
each is the cross-entropy where its own number (s, gamma, beta) is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError


def label_smoothing_loss(logits_BC: Tensor, label_B: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy to labels of which a share `smoothing` is spread over all C classes.

    >>> round(label_smoothing_loss(torch.zeros(1, 4), torch.tensor([2]), 0.1).item(), 4)  # log 4
    1.3863
    """
    return cross_entropy(logits_BC, label_B, label_smoothing=smoothing)


def focal_loss(logits_BC: Tensor, label_B: Tensor, gamma: float) -> Tensor:
    """Mean of -(1 - p_y)^gamma log p_y: what is nearly certain counts less.

    >>> from math import log
    >>> p = torch.tensor([[0.75, 0.25]])
    >>> round(focal_loss(p.log(), torch.tensor([0]), 2.0).item() / (0.25**2 * -log(0.75)), 5)
    1.0
    """
    log_p_B = logits_BC.log_softmax(dim=-1).gather(-1, label_B.unsqueeze(-1)).squeeze(-1)
    # 1 - p without cancellation. At p = 1 a power below 1 has no slope; there the loss is flat.
    rest_B = (-torch.expm1(log_p_B)).clamp(min=torch.finfo(logits_BC.dtype).tiny)
    return -(rest_B**gamma * log_p_B).mean()


def mean_entropy(logits_BC: Tensor) -> Tensor:
    """Mean entropy of the softmax, in nats.

    >>> mean_entropy(torch.zeros(3, 2))
    tensor(0.6931)
    """
    log_p_BC = logits_BC.log_softmax(dim=-1)
    return -(log_p_BC.exp() * log_p_BC).sum(dim=-1).mean()


def confidence_penalty_loss(logits_BC: Tensor, label_B: Tensor, beta: float) -> Tensor:
    """Cross-entropy less `beta` times the mean entropy of the prediction.

    >>> confidence_penalty_loss(torch.zeros(1, 2), torch.tensor([1]), 0.5)  # log 2 - log 2 / 2
    tensor(0.3466)
    """
    return cross_entropy(logits_BC, label_B) - beta * mean_entropy(logits_BC)


def required(name: str, value: float, low: float, high: float, example: float) -> float:
    """A number of the `loss` group, if it lies between its bounds, which belong to it.

    Raises:
        InputError: outside, or not finite.
    """
    if low <= value <= high and value < float("inf"):
        return float(value)
    bounds = f"a number from {low:g}" + (f" to {high:g}" if high < float("inf") else "")
    raise InputError(f"loss.{name} is {value}.", bounds, f"Set loss.{name}={example:g}.")


Again = Callable[[Callable[[Tensor], Tensor]], Tensor]
"""From a change of what the classification head reads of B texts to their logits, (B, C)."""


class LabelParts(NamedTuple):
    """What is minimised for the labels, and further values worth logging, by name."""

    total: Tensor
    further: dict[str, Tensor]


class LabelLoss(nn.Module):
    """What all label losses share.

    Attributes:
        settings: names of the settings of `conf/loss` that the constructor takes.
        needs_classes: the constructor takes C, too.
        needs_head: `again` must be given.
        is_pure: the value follows from what `forward` is given and from buffers, and nothing else
            is kept: a step with it can be recorded once and replayed (learn/graphed.py).
    """

    settings: ClassVar[tuple[str, ...]] = ()
    needs_classes: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False
    is_pure: ClassVar[bool] = True

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """The loss of B texts, a mean, in nats.

        Args:
            logits_BC: the classifier's logits.
            label_B: the labels.
            again: gives the logits anew when what the classification head reads is changed by the
                function that it is given; for losses with `needs_head`.
        """
        raise NotImplementedError  # an abstract method: every entry of LABEL_LOSSES defines it


class CrossEntropy(LabelLoss):
    """-log p_y."""

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """See `LabelLoss.forward`."""
        return LabelParts(cross_entropy(logits_BC, label_B), {})


class LabelSmoothing(LabelLoss):
    """See `label_smoothing_loss`; `smoothing` from 0 to 1."""

    settings = ("smoothing",)

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = required("smoothing", smoothing, 0, 1, 0.1)

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """See `LabelLoss.forward`."""
        return LabelParts(label_smoothing_loss(logits_BC, label_B, self.smoothing), {})


class Focal(LabelLoss):
    """See `focal_loss`; `gamma` from 0."""

    settings = ("gamma",)

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = required("gamma", gamma, 0, float("inf"), 2)

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """See `LabelLoss.forward`."""
        return LabelParts(focal_loss(logits_BC, label_B, self.gamma), {})


class ConfidencePenalty(LabelLoss):
    """See `confidence_penalty_loss`; `beta` from 0."""

    settings = ("beta",)

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = required("beta", beta, 0, float("inf"), 0.1)

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """See `LabelLoss.forward`."""
        total = confidence_penalty_loss(logits_BC, label_B, self.beta)
        return LabelParts(total, {"entropy": mean_entropy(logits_BC.detach())})
