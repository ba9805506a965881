"""GPT-2 read without detours: keys and values in place, no padding among them, rows at any pace.

The model's own forward copies its whole cache at every symbol and at every row that leaves, needs
all rows at the same place, and so pads them on the left. Here each row has its slot in tensors
that are written in place; what lies behind a row's length is not attended to and is overwritten.
The same function as the model's own (tests/noise/test_gpt2.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, pad, scaled_dot_product_attention

from calib_ebm.noise.padding import pad_right

GROWTH = 32
"""Places by which the room for keys and values grows."""


def can_read(model: Any) -> bool:
    """Whether a `GPT2LMHeadModel` computes GPT-2's own function: not so with every config."""
    config = model.config
    return (
        config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.add_cross_attention
    )


class _Pass(NamedTuple):
    """Where the N symbols that are read now stand."""

    place_N: Tensor
    """In their rows."""
    memory_N: Tensor
    """In the first head of a layer's memory, whose heads follow one another."""
    query_N: Tensor | None
    """Among (B, Q) laid flat; None: all of them, in order."""
    shape_BQ: torch.Size
    mask_BQL: Tensor | None
    """0 where attention looks, -inf elsewhere; None at the beginning, where causal says it all."""
    longest: int
    """L: keys that attention looks at."""


class Gpt2Reader:
    """Reads with the weights of a `GPT2LMHeadModel`, see `Reader`.

    Args:
        model: in eval mode; `can_read` must hold.
    """

    # A row that leaves costs the copy of one other row at most.
    compact_at = 1.0
    takes_drafts = True

    def __init__(self, model: Any) -> None:
        self.body, self.head_VH = model.transformer, model.lm_head.weight
        self.heads = int(model.config.n_head)
        self.of_heads = (self.heads, self.head_VH.shape[1] // self.heads)
        self.memory: Tensor
        """Keys and values of what was read: (layers, 2, slots, heads, places, width of a head)."""
        self.length_B: Tensor
        self.longest = 0
        """No row is longer; known without asking the device."""

    def begin(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Read whole rows; logits of what follows each, (B, V)."""
        device = self.head_VH.device
        ids_BQ = pad_right(rows, 0).to(device)
        size, longest = ids_BQ.shape
        room = (len(self.body.h), 2, size, self.of_heads[0], 0, self.of_heads[1])
        self.memory = self.head_VH.new_zeros(room)
        self.length_B, self.longest = ids_BQ.new_zeros(size), 0
        ragged = min(map(len, rows)) < longest
        count_B = torch.tensor([len(row) for row in rows], device=device)
        return self._read(ids_BQ, count_B if ragged else None, count_B.cumsum(dim=0) - 1)

    def read(self, ids_BQ: Tensor, count_B: Tensor | None = None) -> Tensor:
        """Read further symbols; logits of what follows each, (N, V), row by row."""
        return self._read(ids_BQ, count_B, None)

    def forget(self, count_B: Tensor) -> None:
        """Take back the last so many symbols of each row."""
        self.length_B = self.length_B - count_B
        self.longest = int(self.length_B.max())

    def keep(self, order_B: Tensor) -> None:
        """Go on with these rows only, in this order; a row that keeps its place costs nothing."""
        size = len(order_B)
        seen = self.memory[..., : self.longest, :]
        for to, kept in enumerate(order_B.tolist()):
            if to != kept:
                seen[:, :, to] = seen[:, :, kept]
        self.memory, self.length_B = self.memory[:, :, :size], self.length_B[order_B]

    def _read(self, ids_BQ: Tensor, count_B: Tensor | None, last_B: Tensor | None) -> Tensor:
        """Logits of what follows each symbol, or those that `last_B` names, (N, V)."""
        now = self._begin_pass(ids_BQ, count_B)
        ids_N = ids_BQ.reshape(-1)
        if now.query_N is not None:
            ids_N = ids_N[now.query_N]
        hidden_NH = self.body.wte.weight[ids_N] + self.body.wpe.weight[now.place_N]
        for number, block in enumerate(self.body.h):
            if number == len(self.body.h) - 1 and last_B is not None:
                hidden_NH = self._attend_last(number, block, hidden_NH, now, last_B)
            else:
                hidden_NH = self._attend(number, block, hidden_NH, now)
            inner_NF = _affine(block.mlp.c_fc, _normed(block.ln_2, hidden_NH))
            hidden_NH = hidden_NH + _affine(block.mlp.c_proj, gelu(inner_NF, approximate="tanh"))
        self.length_B = self.length_B + (ids_BQ.shape[1] if count_B is None else count_B)
        self.longest = now.longest
        return _normed(self.body.ln_f, hidden_NH) @ self.head_VH.T

    def _begin_pass(self, ids_BQ: Tensor, count_B: Tensor | None) -> _Pass:
        size, wide = ids_BQ.shape
        device, longest = ids_BQ.device, self.longest + wide
        self._make_room(longest)
        step_Q = torch.arange(wide, device=device)
        place_BQ = self.length_B[:, None] + step_Q
        mask_BQL = None
        if self.longest:
            unseen_BQL = torch.arange(longest, device=device) > place_BQ[..., None]
            mask_BQL = self.head_VH.new_zeros(unseen_BQL.shape).masked_fill_(unseen_BQL, -torch.inf)
        slot_B1 = torch.arange(size, device=device)[:, None]
        memory_BQ = slot_B1 * (self.of_heads[0] * self.memory.shape[4]) + place_BQ
        place_N, memory_N, query_N = place_BQ.reshape(-1), memory_BQ.reshape(-1), None
        if count_B is not None:
            query_N = (step_Q < count_B[:, None]).reshape(-1).nonzero()[:, 0]
            place_N, memory_N = place_N[query_N], memory_N[query_N]
        return _Pass(place_N, memory_N, query_N, ids_BQ.shape, mask_BQL, longest)

    def _make_room(self, places: int) -> None:
        """Room grows as rows do: what their greatest length would take is never needed by all."""
        more = places - self.memory.shape[4]
        if more > 0:
            # Zeros, for what lies behind a row is multiplied by attention of 0, and may not be NaN.
            self.memory = pad(self.memory, (0, 0, 0, -(-more // GROWTH) * GROWTH))

    def _attend(self, number: int, block: Any, hidden_NH: Tensor, now: _Pass) -> Tensor:
        """The hidden states with attention's share of a layer."""
        query_NH = self._remember(number, block, hidden_NH, now)
        key, value = self.memory[number, ..., : now.longest, :]
        if now.query_N is not None:
            room = query_NH.new_zeros(now.shape_BQ.numel(), query_NH.shape[1])
            query_NH = room.index_copy_(0, now.query_N, query_NH)
        mask = None if now.mask_BQL is None else now.mask_BQL[:, None]
        seen_BhQD = scaled_dot_product_attention(
            query_NH.view(*now.shape_BQ, *self.of_heads).transpose(1, 2),
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
        )
        seen_NH = seen_BhQD.transpose(1, 2).reshape(-1, hidden_NH.shape[1])
        if now.query_N is not None:
            seen_NH = seen_NH.index_select(0, now.query_N)
        return hidden_NH + _affine(block.attn.c_proj, seen_NH)

    def _attend_last(
        self, number: int, block: Any, hidden_NH: Tensor, now: _Pass, last_B: Tensor
    ) -> Tensor:
        """The same for the last symbol of each row: nothing else of a last layer is asked for."""
        query_NH = self._remember(number, block, hidden_NH, now)
        key, value = self.memory[number, ..., : now.longest, :]
        place_L = torch.arange(now.longest, device=key.device)
        seen_BhQD = scaled_dot_product_attention(
            query_NH[last_B].unflatten(1, self.of_heads)[:, :, None],
            key,
            value,
            attn_mask=(place_L <= now.place_N[last_B][:, None])[:, None, None],
        )
        return hidden_NH[last_B] + _affine(block.attn.c_proj, seen_BhQD.flatten(1))

    def _remember(self, number: int, block: Any, hidden_NH: Tensor, now: _Pass) -> Tensor:
        """Put keys and values of a layer in their places; the queries."""
        query_NH, *kept = _affine(block.attn.c_attn, _normed(block.ln_1, hidden_NH)).chunk(3, dim=1)
        heads, width = self.of_heads
        head_h = torch.arange(heads, device=hidden_NH.device) * self.memory.shape[4]
        place_M = (now.memory_N[:, None] + head_h).reshape(-1)
        for slots, states_NH in zip(self.memory[number], kept, strict=True):
            slots.view(-1, width).index_copy_(0, place_M, states_NH.reshape(-1, width))
        return query_NH


def _affine(conv: Any, input_NH: Tensor) -> Tensor:
    return torch.addmm(conv.bias, input_NH, conv.weight)


def _normed(norm: Any, input_NH: Tensor) -> Tensor:
    return layer_norm(input_NH, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
