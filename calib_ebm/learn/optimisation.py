"""AdamW with the parameter groups and the schedule of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calib_ebm.errors import InputError

TOWARDS = ("zero", "pretrained")

FUSED_ON = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch has AdamW's step as one kernel."""


@dataclass(frozen=True)
class OptimOptions:
    """How the weights are moved.

    Args:
        lr: peak learning rate.
        total_steps: optimiser steps of the whole training.
        warmup_steps: steps of linear rise from 0; a linear fall to 0 follows.
        weight_decay: on weight matrices; biases and LayerNorm weights are never decayed.
        eps: of AdamW.
        betas: of AdamW.
        decay_towards: one of `TOWARDS`: where the decay draws the encoder's weights.
    """

    lr: float
    total_steps: int
    warmup_steps: int
    weight_decay: float = 0.1
    eps: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)
    decay_towards: str = "zero"

    def __post_init__(self) -> None:
        if self.decay_towards not in TOWARDS:
            raise InputError(
                f"optim.decay_towards is {self.decay_towards!r}.",
                ", ".join(TOWARDS),
                "Set optim.decay_towards=zero.",
            )


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: what is decayed, and what is not (biases, and the weights of a normalisation)."""
    plain: set[str] = set()
    for name, part in module.named_modules():
        for key, _ in part.named_parameters(recurse=False):
            # Not only `bias`: DeBERTa's attention has a `q_bias`, XLNet's an `r_w_bias`.
            if key.endswith("bias") or "Norm" in type(part).__name__:
                plain.add(f"{name}.{key}" if name else key)
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if n not in plain], "weight_decay": weight_decay},
        {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
    ]


def linear_schedule(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor on the learning rate at a step: linear rise, then linear fall to 0.

    >>> [round(linear_schedule(s, 2, 6), 2) for s in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


class AdamWTowards(torch.optim.AdamW):
    """AdamW whose decay draws some weights towards others instead of towards zero.

        w <- w - lr * decay * (w - w0) - Adam's step

    With w0 = 0 this is AdamW. L2-SP (Li et al., ICML 2018) adds the square of w - w0 to the loss;
    here it is decoupled from the gradient as AdamW decouples the square of w (Loshchilov & Hutter,
    ICLR 2019).

    Args:
        groups: as for AdamW.
        towards: w0 of those weights that have one. They are no state: who goes on from a checkpoint
            gives the same again.
        options: as for AdamW.
    """

    def __init__(
        self, groups: list[dict[str, Any]], towards: Mapping[nn.Parameter, Tensor], **options: Any
    ) -> None:
        super().__init__(groups, **options)
        self.towards = dict(towards)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """One step."""
        loss = super().step(closure)
        for group in self.param_groups:
            pull = group["lr"] * group["weight_decay"]
            for parameter in group["params"] if pull else ():
                if parameter.grad is not None and parameter in self.towards:
                    start = self.towards[parameter].to(parameter.device)
                    self.towards[parameter] = start
                    # AdamW has multiplied the weight by 1 - pull.
                    parameter.add_(start, alpha=pull)
        return loss


def starting_weights(module: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Copies of a module's weights, for `AdamWTowards`."""
    return {parameter: parameter.detach().clone() for parameter in module.parameters()}


def build_optimizer(
    module: nn.Module,
    options: OptimOptions,
    towards: Mapping[nn.Parameter, Tensor] | None = None,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and its schedule, to be stepped once a step.

    Args:
        module: what is trained.
        options: how.
        towards: weights to decay towards; None for zero everywhere.
    """
    groups = parameter_groups(module, options.weight_decay)
    how: dict[str, Any] = {"lr": options.lr, "eps": options.eps, "betas": options.betas}
    how["fused"] = can_fuse(module)
    optimizer = (
        torch.optim.AdamW(groups, **how)
        if towards is None
        else AdamWTowards(groups, towards, **how)
    )
    if how["fused"]:
        # With float16 a fused step would undo the scale of the loss by itself, after the clipping,
        # so Lightning refuses to clip. Without this mark the scaler undoes it first, as for any.
        optimizer._step_supports_amp_scaling = False  # torch's own mark
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_schedule(step, options.warmup_steps, options.total_steps)
    )
    return optimizer, scheduler


def can_fuse(module: nn.Module) -> bool:
    """Whether all weights lie where torch has the fused step: one kernel a weight, not a dozen.

    Beside a small encoder's forward and backward on a CPU the unfused step is no small part.
    """
    return all(
        parameter.device.type in FUSED_ON and parameter.is_floating_point()
        for parameter in module.parameters()
    )


def count_steps(steps_per_epoch: int, max_steps: int | None, epochs: float | None) -> int:
    """Steps of a training: `max_steps` when given, else `epochs` full passes."""
    if max_steps is not None:
        return int(max_steps)
    assert epochs is not None, "one of max_steps and epochs is set"
    return max(1, round(steps_per_epoch * epochs))


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in parameters if p.requires_grad)
