"""The classifier: any transformers model for sequence classification, or a small RoBERTa from its config.

The only file that makes a classifier out of transformers' parts. What it returns is an ordinary
`AutoModelForSequenceClassification`, so what is trained here can be saved and loaded by anyone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from calib_ebm.errors import InputError

SMALL = "small"
"""The value of `encoder.name_or_path` that means: build a small RoBERTa from `encoder.small`."""


def build_small_encoder(
    labels: Sequence[str],
    vocabulary_size: int,
    pad_id: int,
    max_length: int,
    *,
    layers: int,
    width: int,
    heads: int,
    dropout: float,
) -> nn.Module:
    """A RoBERTa classifier with random weights.

    Args:
        labels: class names.
        vocabulary_size: V of the tokenizer.
        pad_id: id of the padding token; RoBERTa counts positions from behind it.
        max_length: tokens of the longest text, special tokens included.
        layers: transformer layers.
        width: H.
        heads: attention heads; they divide `width`.
        dropout: of hidden states and attention.
    """
    if width % heads:
        raise InputError(
            f"encoder.small has width={width} and heads={heads}.",
            "a width that the number of heads divides",
            f"Set encoder.small.width={width - width % heads or heads}.",
        )
    config = RobertaConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max_length + pad_id + 1,
        type_vocab_size=1,
        pad_token_id=pad_id,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **_names(labels),
    )
    return RobertaForSequenceClassification(config)


def load_encoder(name_or_path: str, labels: Sequence[str], options: Mapping[str, Any]) -> nn.Module:
    """The pretrained encoder with a new classification head for `labels`, in float32.

    Args:
        name_or_path: a Hub id or a local folder.
        labels: class names.
        options: further fields of the model's config, e.g. `hidden_dropout_prob`; applied where the
            architecture has them.

    Raises:
        InputError: when there is no such folder, the Hub cannot be reached, or no encoder is in it.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path, **_names(labels))
        for key, value in options.items():
            if value is not None and hasattr(config, key):
                setattr(config, key, value)
        # A checkpoint that already classifies into other classes keeps its encoder and gets a new head.
        return AutoModelForSequenceClassification.from_pretrained(
            name_or_path, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, KeyError) as error:
        folder = Path(name_or_path)
        there = (
            f"The folder holds: {', '.join(sorted(p.name for p in folder.iterdir())[:12]) or 'nothing'}."
            if folder.is_dir()
            else "Run once where the Hub can be reached, or give a local folder."
        )
        raise InputError(
            f"No encoder could be loaded from encoder.name_or_path={name_or_path!r} "
            f"({str(error).splitlines()[0]}).",
            "a Hub id (cached or reachable) or a local folder that transformers' Auto classes load, "
            f"or {SMALL!r} for a small RoBERTa with random weights",
            there,
        ) from error


def longest_input(model: nn.Module) -> int | None:
    """Tokens that the model takes at most, special tokens included; None where it sets no bound."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    # RoBERTa's positions start behind the padding id.
    offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    return positions - offset


def _names(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }
