"""Rows of different lengths as tensors, with little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows as one (B, T) tensor, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)


def length_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows in batches of similar length, longest first: too little memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    for start in range(0, len(order), size):
        yield order[start : start + size]
