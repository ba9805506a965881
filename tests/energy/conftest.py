"""Tiny random models of several architectures, saved as transformers saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
)

POSITIONS = 20
"""Rows of the table of positions; RoBERTa and MPNet leave two of them unused."""
_SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": POSITIONS,
}
_RELATIVE: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}


def _config(name: str) -> PretrainedConfig:
    match name:
        case "roberta":
            return RobertaConfig(**_SIZE, pad_token_id=1, type_vocab_size=1)
        case "bert":
            return BertConfig(**_SIZE)
        case "distilbert":
            return DistilBertConfig(
                vocab_size=50,
                dim=16,
                n_layers=1,
                n_heads=2,
                hidden_dim=16,
                max_position_embeddings=POSITIONS,
            )
        case "electra":
            return ElectraConfig(**_SIZE, embedding_size=8)
        case "mpnet":
            return MPNetConfig(**_SIZE, pad_token_id=1)
        case "deberta":
            return DebertaConfig(**_SIZE, **_RELATIVE)
        case "deberta_absolute":
            return DebertaConfig(**_SIZE, type_vocab_size=2)
        case _:
            assert name == "deberta_v2", name
            return DebertaV2Config(**_SIZE, **_RELATIVE, position_buckets=4, share_att_key=True)


SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """`save_model("bert", classes=3)`: the folder of a random classifier."""

    def build(name: str, classes: int = 2) -> Path:
        torch.manual_seed(0)
        config = _config(name)
        config.num_labels = classes
        folder = tmp_path / name
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        return folder

    return build


@pytest.fixture
def positions() -> int:
    """Rows of the table of positions of the saved models."""
    return POSITIONS
