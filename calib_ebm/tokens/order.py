"""Which texts stand in which batch: functions of (seed, step), so that a run can go on at any step.

Training is one stream of steps. Epochs are only where the shuffle begins anew, so a run that was
stopped in the middle of an epoch goes on with the very batch that came next, and eight ranks share
the batch that one rank would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Sampler

WINDOW_BATCHES = 50
"""Batches within which texts are brought together by length; the larger, the less padding and the
less random the batches."""


class Place(tuple[int, int, int]):
    """A text's place in training: (row of the text, epoch, position within the epoch)."""

    __slots__ = ()


@dataclass(frozen=True)
class TrainOrder:
    """The order of training texts.

    Every epoch is a new seeded shuffle; texts are then sorted by length within windows of some
    batches, and the batches and the texts of each are shuffled again, so that a batch pads little
    and its first texts are as good as any others. The texts that do not fill a last batch wait for
    the next epoch's shuffle.

    Args:
        lengths: tokens of each text.
        batch_size: texts a step takes over all ranks together.
        seed: of the shuffles.
        window: batches within which texts are brought together by length; 1 is a plain shuffle.
    """

    lengths: tuple[int, ...]
    batch_size: int
    seed: int
    window: int = WINDOW_BATCHES
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Texts of a batch: `batch_size`, or all there are when they are fewer."""
        return min(self.batch_size, len(self.lengths))

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return len(self.lengths) // self.size

    def batch(self, step: int) -> list[Place]:
        """The texts of a step, over all ranks."""
        epoch, within = divmod(step, self.steps_per_epoch)
        rows = self.rows(epoch)[within * self.size : (within + 1) * self.size]
        start = within * self.size
        return [Place((int(row), epoch, start + at)) for at, row in enumerate(rows)]

    def rows(self, epoch: int) -> np.ndarray:
        """Rows of an epoch in their order; the last epoch asked for is kept."""
        if epoch not in self._kept:
            self._kept.clear()
            self._kept[epoch] = self._shuffled(epoch)
        return self._kept[epoch]

    def lengths_at(self, epoch: int) -> np.ndarray:
        """Tokens of the text at each position of an epoch."""
        return np.asarray(self.lengths)[self.rows(epoch)]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        rows = rng.permutation(len(self.lengths))[: self.steps_per_epoch * self.size]
        lengths = np.asarray(self.lengths)
        window = self.window * self.size
        rows = np.concatenate(
            [
                part[np.argsort(lengths[part], kind="stable")]
                for part in np.split(rows, range(window, len(rows), window))
            ]
        )
        batches = rng.permutation(rows.reshape(self.steps_per_epoch, self.size))
        return rng.permuted(batches, axis=1).reshape(-1)


class StepBatches(Sampler[list[Place]]):
    """Batches of steps `first ... last - 1`, this rank's share of each.

    Args:
        order: the global order.
        first: step to begin with: where the run was stopped.
        last: step to end before.
        rank: this process among `world`; it takes every `world`-th text.
        world: number of processes.
    """

    def __init__(
        self, order: TrainOrder, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        self.order, self.first, self.last = order, first, last
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[Place]]:
        for step in range(self.first, self.last):
            yield self.order.batch(step)[self.rank :: self.world]

    def __len__(self) -> int:
        """Steps of the whole training: Lightning adds the steps done before to those it fetches."""
        return self.last


class OnceBatches(Sampler[list[int]]):
    """Every text exactly once over all ranks, in batches of similar length: for evaluation.

    Ranks may get different numbers of texts: nothing is repeated to even them out, so what is
    gathered afterwards is the set itself. But each has as many batches as the others, as long as
    there are texts for all, for ranks that share their weights encode in step.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, rank: int = 0, world: int = 1
    ) -> None:
        by_length = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
        mine = by_length[rank::world]
        count = -(-len(by_length[::world]) // batch_size)
        starts = list(range(0, len(mine), batch_size))
        if len(starts) < count <= len(mine):
            starts = [len(mine) * number // count for number in range(count)]
        ends = [*starts[1:], len(mine)] if starts else []
        self.batches = [mine[at:end] for at, end in zip(starts, ends, strict=True)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def by_tokens(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Every text exactly once, in batches of similar length and at most so many padded tokens.

    A text that is longer than that is a batch of its own.

    >>> by_tokens([3, 9, 3, 4, 8], 12)
    [[0, 2, 3], [4], [1]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        # In this order the text at hand is the longest of its batch.
        if not batches or (len(batches[-1]) + 1) * lengths[row] > most:
            batches.append([])
        batches[-1].append(row)
    return batches
