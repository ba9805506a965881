"""Which process of a run this is, and how it talks with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Team:
    """Which process of a run this is, and how it talks with the others.

    Attributes:
        rank: 0 writes and speaks.
        world: processes in all.
        words: the group for what they tell one another; None: the one that they compute in.
    """

    rank: int = 0
    world: int = 1
    words: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def told(self, value: Any) -> Any:
        """What the first process gives here, in all of them; they wait for it."""
        if self.world == 1:
            return value
        from torch import distributed

        said = [value]
        distributed.broadcast_object_list(said, 0, group=self.words)
        return said[0]

    def all_of(self, value: Any) -> list[Any]:
        """What each process gives here, by rank, in all of them."""
        if self.world == 1:
            return [value]
        from torch import distributed

        given: list[Any] = [None] * self.world
        distributed.all_gather_object(given, value, group=self.words)
        return given


ALONE = Team()
"""One process, which talks with none."""


def here() -> Team:
    """The processes that share whatever this one is in the middle of, as torch knows them."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Team(distributed.get_rank(), distributed.get_world_size())


def added_up(tensor: Tensor) -> Tensor:
    """The sum over the processes that share this training, in place; each of them must call."""
    from torch import distributed

    if here().world > 1:
        distributed.all_reduce(tensor)
    return tensor
