"""AdamW with the parameter groups and the schedule of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


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
    """

    lr: float
    total_steps: int
    warmup_steps: int
    weight_decay: float = 0.1
    eps: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)


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


def build_optimizer(
    module: nn.Module, options: OptimOptions
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and its schedule, to be stepped once a step."""
    optimizer = torch.optim.AdamW(
        parameter_groups(module, options.weight_decay),
        lr=options.lr,
        eps=options.eps,
        betas=options.betas,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_schedule(step, options.warmup_steps, options.total_steps)
    )
    return optimizer, scheduler


def count_steps(steps_per_epoch: int, max_steps: int | None, epochs: float | None) -> int:
    """Steps of a training: `max_steps` when given, else `epochs` full passes."""
    if max_steps is not None:
        return int(max_steps)
    assert epochs is not None, "one of max_steps and epochs is set"
    return max(1, round(steps_per_epoch * epochs))


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in parameters if p.requires_grad)
