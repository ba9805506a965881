"""How an autoregressive noise model reads on: symbols in, logits of what follows out.

A reader holds the keys and values of all that the rows of a batch have read. `Gpt2Reader`, in
gpt2.py, is for GPT-2 and the small noise models; `CacheReader` is for any other model of
transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Reader(Protocol):
    """Reads rows of symbols, each row at its own pace.

    Attributes:
        compact_at: finished rows should leave when no more than this share of the rows is left.
        takes_drafts: whether `read` takes several symbols a row, and `forget` takes them back.
    """

    compact_at: float
    takes_drafts: bool

    def begin(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Read whole rows; logits of what follows each, (B, V)."""

    def read(self, ids_BQ: Tensor, count_B: Tensor | None = None) -> Tensor:
        """Read further symbols; logits of what follows each, (N, V), row by row.

        Args:
            ids_BQ: the symbols.
            count_B: how many of them each row has, from 1 to Q; None: all Q. N is their sum.
        """

    def forget(self, count_B: Tensor) -> None:
        """Take back the last so many symbols of each row."""

    def keep(self, order_B: Tensor) -> None:
        """Go on with these rows only, in this order."""


class CacheReader:
    """Reads with a model's own forward and cache, rows padded on the left.

    Args:
        model: a causal LM of transformers.
        pad: a symbol that padding may be read as; it is neither attended to nor counted.
    """

    # Its cache is copied whole whenever rows leave.
    compact_at = 0.875
    takes_drafts = False

    def __init__(self, model: Any, pad: int) -> None:
        self.model, self.pad = model, pad
        self.cache: Any = None
        self.mask_BT: Tensor | None = None
        self.length_B: Tensor

    def begin(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Read whole rows; logits of what follows each, (B, V)."""
        longest = max(map(len, rows))
        device = next(self.model.parameters()).device
        padded = [[self.pad] * (longest - len(row)) + list(row) for row in rows]
        self.length_B = torch.tensor([len(row) for row in rows], device=device)
        if min(map(len, rows)) == longest:
            return self._step(torch.tensor(padded, device=device), None)
        place_T = torch.arange(longest, device=device)
        self.mask_BT = (place_T >= longest - self.length_B[:, None]).long()
        position_BT = (self.mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        return self._step(torch.tensor(padded, device=device), position_BT)

    def read(self, ids_BQ: Tensor, count_B: Tensor | None = None) -> Tensor:
        """Read one further symbol a row; logits of what follows, (B, V)."""
        assert ids_BQ.shape[1] == 1 and count_B is None, "it takes no drafts"  # noqa: PT018
        position_B1 = None if self.mask_BT is None else self.length_B[:, None]
        if self.mask_BT is not None:
            self.mask_BT = torch.cat([self.mask_BT, torch.ones_like(ids_BQ)], dim=1)
        self.length_B = self.length_B + 1
        return self._step(ids_BQ, position_B1)

    def _step(self, ids_BT: Tensor, position_BT: Tensor | None) -> Tensor:
        out = self.model(
            input_ids=ids_BT,
            attention_mask=self.mask_BT,
            position_ids=position_BT,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = out.past_key_values
        return out.logits[:, -1]

    def forget(self, count_B: Tensor) -> None:
        """Take nothing back: without drafts there is nothing."""
        assert not count_B.any(), "it takes no drafts"

    def keep(self, order_B: Tensor) -> None:
        """Go on with these rows only."""
        self.length_B = self.length_B[order_B]
        if self.mask_BT is not None:
            self.mask_BT = self.mask_BT[order_B]
        self.cache.batch_select_indices(order_B)
