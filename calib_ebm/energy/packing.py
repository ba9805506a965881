"""Where the tokens of packed texts stand, and attention that looks back at it.

All tokens of B texts stand in one row, (1, N, H); attention alone is padded, in groups of texts of
similar length. See `packed.py`, which hands the row through the encoder.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from calib_ebm.energy.attend import attend
from calib_ebm.energy.groups import cut_by_length

PACKING = "packing"
"""The keyword by which a `Packing` travels through the encoder to its attention."""


class Group(NamedTuple):
    """Texts that attention sees side by side."""

    texts: int
    length: int
    key_mask_G11L: Tensor | None
    """Which keys are real; None where all texts are of one length."""


class Packing(NamedTuple):
    """Where the tokens of B texts stand in a row of N tokens, and in M padded places of attention.

    M is the sum over groups of texts times the longest text's length.
    """

    first_B: Tensor
    """Place of each text's first token in the row."""
    spread_M: Tensor
    """The token in each padded place; in padding, the text's last one."""
    real_N: Tensor
    """The padded place of each token."""
    order_B: Tensor
    """The texts as the groups have them."""
    groups: tuple[Group, ...]


class _Spread(torch.autograd.Function):
    """From the row to the padded places. Padding must get no gradient: attention masks it."""

    @staticmethod
    def forward(ctx: Any, row_N: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return row_N.index_select(0, packing.spread_M)

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None]:
        # Each token once: a copy, where the backward of index_select would have to add.
        return grad_M.index_select(0, ctx.packing.real_N), None


class _Collect(torch.autograd.Function):
    """From the padded places back to the row."""

    @staticmethod
    def forward(ctx: Any, places_M: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return places_M.index_select(0, packing.real_N)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_N: Tensor) -> tuple[Tensor, None]:
        packing: Packing = ctx.packing  # type: ignore[attr-defined]  # set above
        grad_M = grad_N.new_zeros((len(packing.spread_M), *grad_N.shape[1:]))
        return grad_M.index_copy_(0, packing.real_N, grad_N), None


def row_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention of each text's tokens to the tokens of that text, (1, N, heads, width of a head).

    Args:
        query: (1, heads, N, width); key and value likewise.
        key: see query.
        value: see query.
        packing: which tokens are of which text.
        dropout: of attention.
        scaling: of the products.
    """
    query_M, key_M, value_M = (
        _Spread.apply(each.squeeze(0).transpose(0, 1), packing) for each in (query, key, value)
    )
    out_M = _over_groups(query_M, key_M, value_M, packing, dropout, scaling)
    row: Tensor = _Collect.apply(out_M, packing)
    return row.unsqueeze(0)


def first_token_attention(
    module: Any, query_1BH: Tensor, key_1NH: Tensor, value_1NH: Tensor, further: dict[str, Any]
) -> Tensor:
    """Attention of each text's first token to the tokens of that text, (1, B, H).

    Args:
        module: the attention of the encoder's last layer, see `first_tokens.py`.
        query_1BH: of the first tokens.
        key_1NH: of all tokens.
        value_1NH: of all tokens.
        further: `packing`, and what else the encoder hands on.

    Raises:
        ValueError: see `refuse_other_masks`.
    """
    packing: Packing = further[PACKING]
    refuse_other_masks(further["attention_mask"], further)
    query, key, value = (
        each[0].unflatten(-1, (-1, module.attention_head_size))
        for each in (query_1BH, key_1NH, value_1NH)
    )
    out = _over_groups(
        query[packing.order_B],
        _Spread.apply(key, packing),
        _Spread.apply(value, packing),
        packing,
        module.dropout.p if module.training else 0.0,
        module.scaling,
    )
    return out[packing.order_B.argsort()].flatten(1).unsqueeze(0)


def refuse_other_masks(attention_mask: Tensor | None, further: dict[str, Any]) -> None:
    """Raises ValueError for attention that is masked, or within a window: it is not packed."""
    if attention_mask is not None or further.get("sliding_window") is not None:
        # Ignored, the scores would be others; and a mask of N by N would cost more than padding.
        raise ValueError("a packed pass knows which tokens are of one text, and no other mask")


def _over_groups(
    query: Tensor,
    key_M: Tensor,
    value_M: Tensor,
    packing: Packing,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention group by group; queries as the groups have their texts, of equally many tokens."""
    padded = [group.texts * group.length for group in packing.groups]
    each_text = len(query) == len(packing.order_B)
    asked = [group.texts for group in packing.groups] if each_text else padded
    # Split, not sliced: the gradients are put side by side, not added up in full width.
    split = (query.split(asked), key_M.split(padded), value_M.split(padded))
    out = []
    for group, *parts in zip(packing.groups, *split, strict=True):
        # (texts, heads, tokens, width)
        q, k, v = (each.unflatten(0, (group.texts, -1)).transpose(1, 2) for each in parts)
        seen = attend(q, k, v, group.key_mask_G11L, dropout, scaling)
        out.append(seen.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)


def pack(attention_mask_BT: Tensor, groups: int) -> Packing:
    """Where the tokens of right-padded texts stand, with at most so many groups in attention."""
    length_B = attention_mask_BT.sum(dim=1).cpu()
    first_B = length_B.cumsum(0) - length_B
    spread, kept, order = [], [], []
    real_N = torch.empty(int(length_B.sum()), dtype=torch.long)
    start = 0
    for rows in cut_by_length(length_B.tolist(), groups):
        length = int(length_B[rows].max())
        place_L = torch.arange(length)
        is_real_GL = place_L < length_B[rows, None]
        token_GL = first_B[rows, None] + torch.minimum(place_L, length_B[rows, None] - 1)
        padded_GL = start + torch.arange(token_GL.numel()).view_as(token_GL)
        real_N[token_GL[is_real_GL]] = padded_GL[is_real_GL]
        mask = None if bool(is_real_GL.all()) else is_real_GL[:, None, None, :]
        spread.append(token_GL.flatten())
        order.append(rows)
        kept.append(Group(len(rows), length, mask))
        start += token_GL.numel()
    device = attention_mask_BT.device
    return Packing(
        first_B.to(device),
        torch.cat(spread).to(device),
        real_N.to(device),
        torch.cat(order).to(device),
        tuple(
            group._replace(key_mask_G11L=group.key_mask_G11L.to(device))
            if group.key_mask_G11L is not None
            else group
            for group in kept
        ),
    )
