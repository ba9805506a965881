"""Attention within texts, by whatever way is fast where it is computed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax

from calib_ebm.energy.dropout import drop

SHORT = 128
"""Tokens of the longest text up to which memory-efficient attention is the faster one: it cuts
texts into tiles of 64 tokens, flash attention into 128, and most of a tile of a sentence is empty.
On an H100, 288 texts of SST-2 took 193 microseconds against 472, of MRPC 397 against 538."""
HALF = (torch.bfloat16, torch.float16)
AMPERE = (8, 0)
"""The compute capability from which on there are kernels for bfloat16."""
WIDEST = 256
"""Width of a head that the kernels take at most."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask_G11L: Tensor | None,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Of G texts, (G, heads, queries, width of a head); torch's own, but for dropout on a CPU.

    There torch takes its slowest way: it looks for rows that are masked as a whole, of which there
    are none here, and draws slowly. Scores are in float32 at least, as they are there.

    Args:
        query: (G, heads, queries, width).
        key: (G, heads, L, width).
        value: as key.
        key_mask_G11L: which keys are real, at least one of each text; None: all.
        dropout: of attention.
        scaling: of the products; None: one over the root of the width.
    """
    if dropout == 0 or query.device.type != "cpu":
        return scaled_dot_product_attention(
            query, key, value, key_mask_G11L, dropout_p=dropout, scale=scaling
        )
    shape, dtype = query.shape, query.dtype
    scale = shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        wide = torch.promote_types(dtype, torch.float32)
        query, key, value = (each.flatten(0, 1).to(wide) for each in (query, key, value))
        scores = torch.baddbmm(
            _bias(key_mask_G11L, shape[1], query), query, key.transpose(1, 2), alpha=scale
        )
        seen = torch.bmm(drop(softmax(scores, dim=-1), dropout), value)
    return seen.to(dtype).view(shape)


def _bias(key_mask_G11L: Tensor | None, heads: int, like: Tensor) -> Tensor:
    """What is added to the scores: -inf at padding, of shape (G * heads, 1, L)."""
    if key_mask_G11L is None:
        return like.new_zeros(1)
    bias_G11L = torch.zeros(key_mask_G11L.shape, dtype=like.dtype)
    bias_G11L.masked_fill_(~key_mask_G11L, -torch.inf)
    return bias_G11L.expand(-1, heads, 1, -1).flatten(0, 1)


def takes_rows(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend_in_row` can: on a GPU from Ampere on, in at most 32 bits.

    The kernels are no operations that autocast knows: where an encoder turns queries and keys in
    float32 (rotary positions), precisions differ, and torch's own attention has to make them one.

    Args:
        query: (N, heads, width of a head).
        key: likewise.
        value: likewise.
    """
    return (
        query.is_cuda
        and query.dtype == key.dtype == value.dtype
        and query.dtype in (*HALF, torch.float32)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= WIDEST
        and torch.cuda.get_device_capability(query.device) >= AMPERE
    )


class Ends(NamedTuple):
    """Where the B texts of a row end, and how long they are at most, as kernels want it."""

    queries: Tensor
    """Where each text's queries end, in 32 bits: (B + 1), from 0 to N."""
    keys: Tensor
    """Where its keys end, likewise: from 0 to M."""
    most_queries: int
    """Of a text."""
    most_keys: int
    """Of a text."""


def attend_in_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Ends,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention of texts that stand in one row without padding, in one kernel; as the query.

    `torch.nn.attention.varlen.varlen_attn` hands on to the second of these kernels, but has no
    dropout.

    Args:
        query: (N, heads, width).
        key: (M, heads, width).
        value: as key.
        ends: of the texts.
        dropout: of attention.
        scaling: of the products; None: one over the root of the width.
    """
    out: Tensor
    if ends.most_keys <= SHORT or query.dtype not in HALF:
        row = (each.unsqueeze(0) for each in (query, key, value))
        out = torch.ops.aten._efficient_attention_forward(
            *row, None, *ends, dropout, 0, True, scale=scaling
        )[0].squeeze(0)
        return out
    out = torch.ops.aten._flash_attention_forward(
        query, key, value, *ends, dropout, False, False, scale=scaling
    )[0]
    return out
