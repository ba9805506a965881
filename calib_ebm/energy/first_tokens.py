"""The last layer of an encoder of BERT's build, for nothing but the texts' first tokens.

A classifier reads the label from each text's first token, so of the last layer's output all other
rows are thrown away. Here the last layer's keys and values are computed for all tokens, and
everything behind them, five sixths of the layer's products, for the first ones only: of an encoder
of L layers a share of 5/6L is saved, forward and backward, and scores and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""What a layer of BERT's build has: BERT, RoBERTa, ELECTRA, XLM-R and their kin."""

Attend = Callable[[Any, Tensor, Tensor, Tensor, Any], Tensor]
"""Attention of the first tokens (1, B, H), from query, key and value, and what was handed on."""


def last_layer(encoder: nn.Module) -> nn.Module | None:
    """The encoder's last layer, if it is of BERT's build."""
    layers = getattr(getattr(encoder, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    names = {name for name, _ in layers[-1].named_modules()}
    return layers[-1] if names.issuperset(PARTS) else None


@contextmanager
def first_tokens_only(layer: nn.Module, first_B: Tensor, attend: Attend) -> Iterator[None]:
    """Within, the layer returns (1, B, H): the rows of the first tokens.

    Args:
        layer: see `last_layer`.
        first_B: place of each text's first token in the row.
        attend: the attention.
    """
    layer.forward = partial(_forward, layer, first_B, attend)
    try:
        yield
    finally:
        # What is left is the method of the class.
        vars(layer).pop("forward", None)


def _forward(
    layer: Any,
    first_B: Tensor,
    attend: Attend,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    *_: Any,
    **further: Any,
) -> Tensor:
    attention = layer.attention.self
    first_1BH = hidden_states[:, first_B]
    seen_1BH = attend(
        attention,
        attention.query(first_1BH),
        attention.key(hidden_states),
        attention.value(hidden_states),
        {**further, "attention_mask": attention_mask},
    )
    out_1BH = layer.attention.output(seen_1BH, first_1BH)
    result: Tensor = layer.output(layer.intermediate(out_1BH), out_1BH)
    return result
