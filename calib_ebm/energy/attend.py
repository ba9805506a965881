"""Attention within one group of texts, by whatever way is fast where it is computed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax

from calib_ebm.energy.dropout import drop


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
