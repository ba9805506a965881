"""A loss that is not finite ends the training; a GPU is not waited for to find it out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.errors import TrainingFailed
from calib_ebm.loss.joint import LossParts


class _Noted(NamedTuple):
    step: int
    parts: LossParts
    is_finite: Tensor
    arrived: torch.cuda.Event | None
    """Passed when `is_finite` is on the host."""


class LossWatch:
    """Looks at the loss of a step, at once or when it is there anyway.

    A number on a GPU is there when all kernels in front of it are done. So the host, which runs
    ahead, looks at a step's loss when the next step begins; the weights have moved by then, and
    `check` must come before they are measured, written or handed on.
    """

    def __init__(self) -> None:
        self._noted: _Noted | None = None

    def note(self, step: int, parts: LossParts) -> None:
        """Have the loss of a step looked at by the next `check`."""
        plain = LossParts(
            parts.total.detach(),
            parts.label.detach(),
            parts.ce.detach(),
            None if parts.nce is None else parts.nce.detach(),
            {},
        )
        is_finite, arrived = torch.isfinite(plain.total), None
        if is_finite.is_cuda:
            there = is_finite
            is_finite = torch.empty((), dtype=torch.bool, pin_memory=True)
            is_finite.copy_(there, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._noted = _Noted(step, plain, is_finite, arrived)

    def check(self) -> None:
        """Look at what was noted, once.

        Raises:
            TrainingFailed: where it is not finite; names the step.
        """
        if self._noted is None:
            return
        (step, parts, is_finite, arrived), self._noted = self._noted, None
        if arrived is not None:
            arrived.synchronize()
        if is_finite:
            return
        nce = "none" if parts.nce is None else f"{parts.nce.item():.4g}"
        raise TrainingFailed(
            f"The loss is {parts.total.item()} at step {step} "
            f"(loss/label {parts.label.item():.4g}, "
            f"loss/ce {parts.ce.item():.4g}, loss/nce {nce}). "
            "Training has stopped; the last good checkpoint is kept.\n"
            "  to do: lower the learning rate (optim.lr), or train in full precision "
            "(trainer.precision=32-true)."
        )
