"""The classifier: any transformers model for sequence classification, or a small RoBERTa.

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
from transformers.utils import logging as hf_logging

from calib_ebm.errors import InputError
from calib_ebm.hub import must_be_local

SMALL = "small"
"""The value of `encoder.name_or_path` that means: build a small RoBERTa from `encoder.small`."""


def hush() -> None:
    """No bars, and no reports of weights: no checkpoint holds the new classification head."""
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()


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


def load_encoder(
    name_or_path: str, labels: Sequence[str], options: Mapping[str, Any], *, finished: bool = False
) -> nn.Module:
    """The pretrained encoder as a classifier into `labels`, in float32.

    Its classification head is new, unless the checkpoint has one for as many classes.

    Args:
        name_or_path: a Hub id or a local folder.
        labels: class names.
        options: further fields of the model's config, e.g. `hidden_dropout_prob`; applied where the
            architecture has them, None leaves them as they are.
        finished: whether it must be a classifier into these labels already, with all its weights.

    Raises:
        InputError: when there is no such folder, the Hub cannot be reached, or no encoder is in it;
            for a finished one also when a weight is missing or of another shape.
    """
    try:
        # What a folder holds is not executed, and nothing is asked.
        safely = {"local_files_only": must_be_local(name_or_path), "trust_remote_code": False}
        config = AutoConfig.from_pretrained(name_or_path, **safely, **_names(labels))
        for key, value in options.items():
            if value is not None and hasattr(config, key):
                setattr(config, key, value)
        # A head for another number of classes is replaced.
        model, told = AutoModelForSequenceClassification.from_pretrained(
            name_or_path,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **safely,
        )
        if finished and (new := _new_weights(told)):
            raise ValueError(f"its weights have no {new} for {len(labels)} classes")
        return model
    # Half-written files raise errors of every kind; all mean the same to the person.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"No encoder could be loaded from encoder.name_or_path={name_or_path!r} "
            f"({type(error).__name__}: {cause}).",
            "a Hub id (cached or reachable) or a folder that transformers' Auto classes load, "
            f"or {SMALL!r} for a small RoBERTa with random weights",
            _advice(Path(name_or_path)),
        ) from error


def _new_weights(told: Mapping[str, Any]) -> str:
    """Names of the weights that loading had to draw anew, as transformers tells of it."""
    other = [key[0] if isinstance(key, tuple) else key for key in told["mismatched_keys"]]
    return ", ".join(sorted({*told["missing_keys"], *other}))


def _advice(folder: Path) -> str:
    if not folder.is_dir():
        return "Run once where the Hub can be reached, or give a local folder."
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12])
    return f"Check the folder; it holds: {there or 'nothing'}."


def longest_input(model: nn.Module) -> int | None:
    """Tokens that the model takes at most, special tokens included; None where it sets no bound.

    A table of positions is the bound, without the places up to that of the padding id where RoBERTa
    and its kin keep one. Relative positions know no bound; theirs is what the model was made for.
    """
    for name, part in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(part, nn.Embedding):
            unused = 0 if part.padding_idx is None else part.padding_idx + 1
            return part.num_embeddings - unused
    config: Any = model.config
    made_for = getattr(config, "max_position_embeddings", None) or 0
    return made_for if made_for > 0 else None


def _names(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }
