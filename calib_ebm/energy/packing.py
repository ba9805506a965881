"""Where the tokens of packed texts stand, and attention that looks back at it.

All tokens of B texts stand in one row, (1, N, H). Where there are kernels for rows like it, on a
GPU, attention takes it as it is; elsewhere attention alone is padded, in groups of texts of similar
length. See `packed.py`, which hands the row through the encoder.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from calib_ebm.energy.attend import Ends, attend, attend_in_row, takes_rows
from calib_ebm.energy.groups import cut_by_length, lengths_of
from calib_ebm.shapes import TokenBatch

PACKING = "packing"
"""The keyword by which a `Packing` travels through the encoder to its attention."""


class Group(NamedTuple):
    """Texts that attention sees side by side."""

    texts: int
    length: int
    key_mask_G11L: Tensor | None
    """Which keys are real; None where all texts are of one length."""


class Places(NamedTuple):
    """Where the tokens of a row stand in M padded places of attention, and back.

    M is the sum over groups of texts times the longest text's length.
    """

    spread_M: Tensor
    """The token in each padded place; in padding, the text's last one."""
    real_N: Tensor
    """The padded place of each token."""
    order_B: Tensor
    """The texts as the groups have them."""
    groups: tuple[Group, ...]


class Packing:
    """Where the tokens of B texts stand in a row of N tokens.

    Args:
        length_B: tokens of each text, on the host: how much there is to do is known there.
        groups: in attention, at most.
        device: where the row is.
    """

    def __init__(self, length_B: Tensor, groups: int, device: torch.device) -> None:
        self.length_B, self.most_groups, self.device = length_B, groups, device
        self.tokens = int(length_B.sum())
        self.longest = int(length_B.max())
        """Tokens of a text at most."""
        end_B = length_B.to(device, non_blocking=True).cumsum(0)
        self.ends = torch.nn.functional.pad(end_B, (1, 0)).int()
        """Where texts end, and the next begin: (B + 1), from 0 to N."""
        self.first_B = self.ends[:-1].long()
        """Place of each text's first token in the row."""
        self.is_recorded = False
        """Whether the lengths will be others when what is computed now is repeated."""

    @cached_property
    def text_N(self) -> Tensor:
        """Which text each token is of."""
        text_B = torch.arange(len(self.length_B), device=self.device)
        length_B = self.ends.diff()
        return torch.repeat_interleave(text_B, length_B, output_size=self.tokens)

    @cached_property
    def position_N(self) -> Tensor:
        """Where in its text each token stands, from 0."""
        place_N = torch.arange(self.tokens, device=self.device)
        return place_N - self.first_B[self.text_N]

    @cached_property
    def each_one(self) -> Tensor:
        """Where texts end if each has one token alone, (B + 1)."""
        return torch.arange(len(self.length_B) + 1, dtype=torch.int32, device=self.device)

    @cached_property
    def padded(self) -> Places:
        """For attention that pads, which depends on the lengths."""
        if self.is_recorded:
            raise RuntimeError("a step that pads cannot be recorded: its lengths are on the host")
        return _places(self.length_B, self.most_groups, self.device)


class _Spread(torch.autograd.Function):
    """From the row to the padded places. Padding must get no gradient: attention masks it."""

    @staticmethod
    def forward(ctx: Any, row_N: Tensor, places: Places) -> Tensor:
        ctx.places = places
        return row_N.index_select(0, places.spread_M)

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None]:
        # Each token once: a copy, where the backward of index_select would have to add.
        return grad_M.index_select(0, ctx.places.real_N), None


class _Collect(torch.autograd.Function):
    """From the padded places back to the row."""

    @staticmethod
    def forward(ctx: Any, padded_M: Tensor, places: Places) -> Tensor:
        ctx.places = places
        return padded_M.index_select(0, places.real_N)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_N: Tensor) -> tuple[Tensor, None]:
        places: Places = ctx.places  # type: ignore[attr-defined]  # set above
        grad_M = grad_N.new_zeros((len(places.spread_M), *grad_N.shape[1:]))
        return grad_M.index_copy_(0, places.real_N, grad_N), None


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
    # (N, heads, width)
    query, key, value = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
    if takes_rows(query, key, value):
        ends = Ends(packing.ends, packing.ends, packing.longest, packing.longest)
        row = attend_in_row(query, key, value, ends, dropout, scaling)
        return row.unsqueeze(0)
    places = packing.padded
    query_M, key_M, value_M = (_Spread.apply(each, places) for each in (query, key, value))
    out_M = _over_groups(query_M, key_M, value_M, places, dropout, scaling)
    row = _Collect.apply(out_M, places)
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
    dropout, scaling = module.dropout.p if module.training else 0.0, module.scaling
    if takes_rows(query, key, value):
        ends = Ends(packing.each_one, packing.ends, 1, packing.longest)
        seen = attend_in_row(query, key, value, ends, dropout, scaling)
        return seen.flatten(1).unsqueeze(0)
    places = packing.padded
    out = _over_groups(
        query[places.order_B],
        _Spread.apply(key, places),
        _Spread.apply(value, places),
        places,
        dropout,
        scaling,
    )
    return out[places.order_B.argsort()].flatten(1).unsqueeze(0)


def refuse_other_masks(attention_mask: Tensor | None, further: dict[str, Any]) -> None:
    """Raises ValueError for attention that is masked, or within a window: it is not packed."""
    if attention_mask is not None or further.get("sliding_window") is not None:
        # Ignored, the scores would be others; and a mask of N by N would cost more than padding.
        raise ValueError("a packed pass knows which tokens are of one text, and no other mask")


def _over_groups(
    query: Tensor,
    key_M: Tensor,
    value_M: Tensor,
    places: Places,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention group by group; queries as the groups have their texts, of equally many tokens."""
    padded = [group.texts * group.length for group in places.groups]
    each_text = len(query) == len(places.order_B)
    asked = [group.texts for group in places.groups] if each_text else padded
    # Split, not sliced: the gradients are put side by side, not added up in full width.
    split = (query.split(asked), key_M.split(padded), value_M.split(padded))
    out = []
    for group, *parts in zip(places.groups, *split, strict=True):
        # (texts, heads, tokens, width)
        q, k, v = (each.unflatten(0, (group.texts, -1)).transpose(1, 2) for each in parts)
        seen = attend(q, k, v, group.key_mask_G11L, dropout, scaling)
        out.append(seen.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)


def pack(tokens: TokenBatch, groups: int) -> Packing:
    """Where the tokens of right-padded texts stand, with at most so many groups in attention."""
    return Packing(lengths_of(tokens), groups, tokens.input_ids_BT.device)


def _places(length_B: Tensor, groups: int, device: torch.device) -> Places:
    """The padded places of attention in at most so many groups."""
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
    return Places(
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
