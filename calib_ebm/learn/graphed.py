"""Joint steps as CUDA graphs: forward and backward are recorded once a shape, and replayed.

A step of a small batch is a thousand and more kernels, most of which take a GPU less time than the
host needs to ask for them. A recorded step is asked for as a whole. It computes what the step as it
stands in `joint.py` does, dropout drawn from the same seed, on a batch that is filled up to one of
a few shapes (`energy/fillers.py`).

What is recorded sees the same tensors each time: a batch is copied into them, and gradients come
out in the parameters' own. So a step that asks the host for something, or keeps something in
Python, cannot be recorded: `recordable.py` knows which.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from calib_ebm.energy.fillers import LONGEST, filled, shape_of
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.packed import Packed
from calib_ebm.energy.packing import PACKING, Packing
from calib_ebm.learn.joint_scores import StepScores, energy_labels, of_batch
from calib_ebm.learn.recordable import Circumstances, refusal, why_not
from calib_ebm.loss.joint import JointLoss, LossParts
from calib_ebm.shapes import JointBatch

MOST = 64
"""Shapes that are recorded; what is met after that is computed as it comes."""
WARM_UP = 2
"""Steps in front of a recording: libraries choose kernels and allocate in the first."""


class Given(NamedTuple):
    """All tensors that a step reads and that differ from step to step."""

    row: dict[str, Tensor]
    ends: Tensor
    first_B: Tensor
    label_B: Tensor
    energy_label_B: Tensor | None
    progress: Tensor

    def tensors(self) -> list[Tensor]:
        """In a fixed order."""
        return [each for part in self for each in _leaves(part)]


def _leaves(part: Any) -> list[Tensor]:
    if part is None:
        return []
    return list(part.values()) if isinstance(part, dict) else [part]


class Recorded(NamedTuple):
    """A step of one shape."""

    graph: torch.cuda.CUDAGraph
    given: Given
    packing: Packing
    """Kept for what it has made of the lengths, which the graph reads where it lay."""
    scores: StepScores
    parts: LossParts


class GraphedSteps:
    """Scores, loss and gradients of joint batches by replaying what was recorded.

    Args:
        passes: how texts are encoded.
        loss: of labels and energy.
        reseed: seeds the step's dropout.
    """

    def __init__(self, passes: Packed, loss: JointLoss, reseed: Callable[[], None]) -> None:
        self.passes, self.loss, self.reseed = passes, loss, reseed
        self.parameters = [p for p in passes.network.parameters() if p.requires_grad]
        self.gradients: list[Tensor | None] = []
        config: Any = passes.network.encoder.config
        self.pad_id = int(config.pad_token_id or 0)
        positions = getattr(config, "max_position_embeddings", LONGEST + passes.first_position)
        self.most = min(LONGEST, positions - passes.first_position)
        self.recorded: dict[Hashable, Recorded] = {}
        self.pool: Any = None
        self.stream: torch.cuda.Stream | None = None

    def __call__(self, batch: JointBatch, progress: float) -> tuple[StepScores, LossParts] | None:
        """A step: its scores and loss, without a graph; gradients stand in the parameters.

        None where it is not recorded and one shape more would be too many, or where the host does
        not know the batch's lengths.

        Args:
            batch: on the GPU.
            progress: share of the training that is done.
        """
        lengths = batch.tokens.length_B
        if lengths is None:
            return None
        given, packing = self._given(batch, lengths, progress)
        key = (packing.longest, *(each.shape for each in given.tensors()), _noise_shape(batch))
        recorded = self.recorded.get(key)
        if recorded is None:
            if len(self.recorded) >= MOST:
                return None
            recorded = self.recorded[key] = self._record(given, packing, batch)
        for kept, new in zip(recorded.given.tensors(), given.tensors(), strict=True):
            kept.copy_(new)
        recorded.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return _copied(recorded.scores), _copied(recorded.parts)

    def _given(
        self, batch: JointBatch, lengths: np.ndarray, progress: float
    ) -> tuple[Given, Packing]:
        shape = shape_of(lengths, self.most)
        tokens = filled(batch.tokens, shape, self.pad_id)
        row = self.passes.row(tokens)
        packing: Packing = row.pop(PACKING)
        packing.longest = shape.longest
        label_B = energy_labels(self.passes.network, batch)
        if label_B is not None:
            missing = shape.texts - len(label_B)
            label_B = torch.nn.functional.pad(label_B, (0, missing), value=-1)
        device = batch.label_B.device
        done = torch.full((), progress, device=device)
        return Given(row, packing.ends, packing.first_B, batch.label_B, label_B, done), packing

    def _step(
        self, given: Given, packing: Packing, batch: JointBatch
    ) -> tuple[StepScores, LossParts]:
        """What is recorded."""
        scores = of_batch(
            self.passes.of_row({**given.row, PACKING: packing}, given.energy_label_B), batch
        )
        parts = self.loss(scores.logits_BC, given.label_B, *scores[1:], progress=given.progress)
        found = torch.autograd.grad(parts.total, self.parameters, allow_unused=True)
        if not self.gradients:
            self.gradients = [None if each is None else torch.empty_like(each) for each in found]
        kept = [each for each in self.gradients if each is not None]
        torch._foreach_copy_(kept, [each for each in found if each is not None])
        return _each(scores, Tensor.detach), _each(parts, Tensor.detach)

    def _record(self, given: Given, packing: Packing, batch: JointBatch) -> Recorded:
        given = _copied(given)
        packing.ends, packing.first_B, packing.is_recorded = given.ends, given.first_B, True
        # Weights that autocast has cast for an earlier pass would be recorded as they were then.
        torch.clear_autocast_cache()
        before, own = torch.cuda.current_stream(), self.stream or torch.cuda.Stream()
        self.stream = own
        own.wait_stream(before)
        with torch.cuda.stream(own):
            for _ in range(WARM_UP):
                self._step(given, packing, batch)
                torch.clear_autocast_cache()
        before.wait_stream(own)
        packing.each_one  # noqa: B018  # made now, not while recording
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                scores, parts = self._step(given, packing, batch)
        except BaseException:
            _draw_anew()
            raise
        finally:
            # Where recording fails, torch leaves its stream the current one, and casts that never
            # were made in autocast's cache.
            torch.cuda.set_stream(before)
            torch.clear_autocast_cache()
        self.pool = graph.pool()
        self.reseed()
        return Recorded(graph, given, packing, scores, parts)


def _draw_anew() -> None:
    """Exchange the state of the GPU's generator, which a failed recording leaves recording."""
    here = torch.cuda.current_device()
    fresh = torch.Generator(torch.device("cuda", here)).graphsafe_get_state()
    torch.cuda.default_generators[here].graphsafe_set_state(fresh)


def _noise_shape(batch: JointBatch) -> tuple[int, ...] | None:
    return None if batch.noise_label_SK is None else tuple(batch.noise_label_SK.shape)


def _each(
    values: Any, change: Callable[[Tensor], Tensor], known: dict[int, Tensor] | None = None
) -> Any:
    """Named tuples and mappings of tensors, changed one by one; what is one tensor stays one."""
    known = {} if known is None else known
    if isinstance(values, Tensor):
        if id(values) not in known:
            known[id(values)] = change(values)
        return known[id(values)]
    if isinstance(values, dict):
        return {name: _each(value, change, known) for name, value in values.items()}
    if isinstance(values, tuple):
        return type(values)(*(_each(value, change, known) for value in values))
    return values


def _copied(values: Any) -> Any:
    return _each(values, Tensor.clone)


def build_steps(
    asked: bool | str,
    passes: Packed | Grouped,
    loss: JointLoss,
    reseed: Callable[[], None],
    circumstances: Circumstances,
) -> GraphedSteps | None:
    """Steps that are recorded, or None where they cannot be, or shall not.

    Args:
        asked: `trainer.graphs`: true, false or "auto".
        passes: see `GraphedSteps`.
        loss: see `GraphedSteps`.
        reseed: see `GraphedSteps`.
        circumstances: of the training.

    Raises:
        InputError: where they are asked for and cannot be.
    """
    why = why_not(passes, loss, circumstances) if asked else "they are not wanted"
    if asked is True and why:
        raise refusal(why)
    return None if why or not isinstance(passes, Packed) else GraphedSteps(passes, loss, reseed)
