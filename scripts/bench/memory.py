"""The most bytes that tensors hold at one time, counted, not asked of the system.

What the system says depends on what was freed and kept; this is the same on every machine. Counted
are tensors that torch's operators hand out, not what a kernel holds within.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Counts tensors made within."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """One operator."""
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self._meet(each.untyped_storage())
        return out

    def _meet(self, storage: Any) -> None:
        place = storage.data_ptr()
        if place == 0 or place in self.known:
            return
        self.known[place] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place)

    def _gone(self, place: int) -> None:
        self.now -= self.known.pop(place, 0)


def peak_of(function: Callable[[], object]) -> int:
    """Bytes that tensors made by a function hold at most."""
    with PeakBytes() as counted:
        function()
    return counted.peak
