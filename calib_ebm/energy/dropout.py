"""Dropout whose masks are drawn fast on a CPU.

torch draws 64 random bits on a CPU for each element, and with one thread that is a tenth of the
training of a small encoder. Here each element takes 16 bits, a lane of four in a 64-bit draw:

    kept if lane >= threshold,     P(dropped) = round(65536 p) / 65536,     scaled by 1 / P(kept)

The probability is within 2^-17 of p, and because the scale is that of the probability as drawn,
the mean is what it was, exactly. What is kept for the backward is the lanes, two bytes an element.
Elsewhere than on a CPU this is torch's own dropout. Under `torch.manual_seed` it repeats itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LANES, STEPS = 4, 2**16
"""Lanes of a 64-bit draw, and values of a lane."""


def threshold(p: float) -> int:
    """Lanes below it are dropped, as they come: signed.

    >>> threshold(0.0), threshold(0.5)
    (-32768, 0)
    """
    return round(p * STEPS) - STEPS // 2


class _Drop(torch.autograd.Function):
    """Zeros and the scale, from the lanes; the same on the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        draws = torch.empty(-(-values.numel() // LANES), dtype=torch.int64)
        # All 64 bits: without bounds the highest is never set, and a lane in four would be wrong.
        draws.random_(-(2**63), None)
        ctx.lanes = draws.view(torch.int16)[: values.numel()].view(values.shape)
        ctx.threshold = threshold(p)
        return _dropped(values, ctx.lanes, ctx.threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _dropped(grad, ctx.lanes, ctx.threshold), None


def _dropped(values: Tensor, lanes: Tensor, below: int) -> Tensor:
    # A comparison into numbers, not booleans: multiplying numbers by booleans is slow.
    out = torch.empty(values.shape, dtype=values.dtype)
    torch.ge(lanes, below, out=out)
    kept = (STEPS // 2 - below) / STEPS
    return out.mul_(values).mul_(1 / kept)


def drop(values: Tensor, p: float) -> Tensor:
    """Zeros with probability p, and what is kept is scaled so that the mean stays.

    Args:
        values: of any shape.
        p: from 0 to 1.
    """
    # At 0 torch draws nothing, so neither do we; at 1 there is no scale.
    if values.device.type != "cpu" or not 0 < round(p * STEPS) < STEPS:
        return nn.functional.dropout(values, p)
    dropped: Tensor = _Drop.apply(values, p)
    return dropped


class LaneDropout(nn.Dropout):
    """`nn.Dropout` by `drop`."""

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """The values, dropped out in training."""
        if not self.training or self.inplace:
            return super().forward(input)
        return drop(input, self.p)


def exchange_dropout(module: nn.Module) -> None:
    """Let the dropouts of a module draw fast. They stay `nn.Dropout`s, in their places."""
    for part in module.modules():
        if type(part) is nn.Dropout:
            part.__class__ = LaneDropout
