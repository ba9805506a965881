"""Encoders of the benchmark: from their configs, with random weights, so that no file is needed."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)


def _embedded() -> nn.Module:
    """As the embedded task has it."""
    config = RobertaConfig(
        vocab_size=600,
        max_position_embeddings=130,
        type_vocab_size=1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
    )
    return RobertaForSequenceClassification(config)


def _minilm() -> nn.Module:
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    return BertForSequenceClassification(config)


def _roberta_base() -> nn.Module:
    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    return RobertaForSequenceClassification(config)


SIZES: dict[str, Callable[[], nn.Module]] = {
    "embedded": _embedded,
    "minilm": _minilm,
    "roberta_base": _roberta_base,
}
"""Encoders by name, with random weights; dropout .1 as their configs have it."""
