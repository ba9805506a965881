"""The noise of a step in chunks: its memory grows with a chunk, no longer with K.

L_NCE is a sum over data and noise apart, and so is its gradient. So the noise texts can be encoded
and backpropagated some at a time, each chunk's graph being gone before the next is built, and the
data last; the gradients add up to those of one pass over all texts. What differs is what chance
draws: dropout is drawn chunk after chunk, the data last, from the step's seed. A training with
chunks of one size repeats itself, and differs from one with another size as two seeds do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from calib_ebm.energy.groups import Grouped, trimmed
from calib_ebm.energy.packed import Packed
from calib_ebm.errors import InputError
from calib_ebm.learn.sharding import is_sharded
from calib_ebm.loss.joint import JointLoss
from calib_ebm.shapes import JointBatch


def without_noise(batch: JointBatch) -> JointBatch:
    """The B data texts alone."""
    rows = torch.arange(len(batch.label_B))
    return batch._replace(tokens=trimmed(batch.tokens, rows), noise_label_SK=None)


def backward_of_noise(
    passes: Packed | Grouped,
    batch: JointBatch,
    loss: JointLoss,
    chunk: int,
    *,
    progress: float,
    backward: Callable[[Tensor], Any],
) -> Tensor:
    """Add the gradients of the noise's part of the loss, chunk by chunk.

    Args:
        passes: encodes; with an energy.
        batch: B data texts, and K noise texts for each of S of them.
        loss: its weight of the noise counts.
        chunk: noise texts that are encoded and backpropagated together.
        progress: share of the training that is done, for the loss's ramp.
        backward: takes each chunk's part of the loss, a scalar.

    Returns:
        the energies of the noise, (S, K), without a graph.
    """
    label_SK = batch.noise_label_SK
    assert label_SK is not None, "the batch has noise"
    network = passes.network
    assert network.energy is not None, "noise is drawn for an energy only"
    reads_labels = bool(network.energy.reads_labels)
    texts, per_text = label_SK.shape
    first, energies = len(batch.label_B), []
    for start in range(0, texts * per_text, chunk):
        rows = torch.arange(start, min(start + chunk, texts * per_text))
        tokens = trimmed(batch.tokens, first + rows)
        label_M = label_SK.flatten()[start : start + chunk] if reads_labels else None
        energy_M = passes(tokens, label_M).energy_B
        assert energy_M is not None, "there is an energy"
        backward(loss.of_noise(energy_M, texts, per_text, progress=progress))
        energies.append(energy_M.detach())
    return torch.cat(energies).view(texts, per_text)


def check_chunk(trainer: Mapping[str, Any]) -> int | None:
    """`trainer.noise_chunk`: noise texts of a chunk, or None for all of a step at once.

    Raises:
        InputError: for anything else than null or a whole number from 1, and where weights are
            sharded, for there no backward may come before the end of the forward.
    """
    value, strategy = trainer["noise_chunk"], str(trainer["strategy"])
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f"trainer.noise_chunk is {value!r}.",
            "null, or a whole number from 1: noise texts that are backpropagated together",
            "Set trainer.noise_chunk=32, or null where memory is not short.",
        )
    if is_sharded(trainer):
        raise InputError(
            f"trainer.noise_chunk is {value} and trainer.strategy is {strategy!r}.",
            "chunks with auto or ddp; sharded weights without chunks",
            "Set trainer.noise_chunk=null, or trainer=ddp.",
        )
    return value
