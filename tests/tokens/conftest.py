"""Tokenizers of the four kinds that encoders come with, each over a tiny vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import BertTokenizer, DebertaV2Tokenizer, DistilBertTokenizer

from calib_ebm.tokens.tokenizer import train_tokenizer

WORDS = ("a", "cat", "sat", "on", "the", "mat", "and", "good", "bad", "film", "was", "it")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = ("c", "##a", "##t", "##s", "##e", "[", "]", "sep", "mask", "<", ">", "/", "s")
NAMES = ("roberta", "bert", "distilbert", "deberta_v2")


def build(name: str) -> Any:
    """A tokenizer by name; small enough to be made for each test."""
    vocabulary = {word: row for row, word in enumerate((*SPECIALS, *WORDS, *LETTERS))}
    match name:
        case "roberta":
            return train_tokenizer([" ".join(WORDS), "the cat sat", "it was good film"] * 3, 300)
        case "bert":
            return BertTokenizer(vocab=vocabulary)
        case "distilbert":
            return DistilBertTokenizer(vocab=vocabulary)
        case _:
            assert name == "deberta_v2", name
            # A unigram vocabulary lists its special tokens among its pieces, as the real one does.
            pieces = [(word, 0.0) for word in SPECIALS]
            pieces += [(f"▁{word}", -3.0) for word in WORDS]
            pieces += [(piece, -9.0) for piece in ("▁", *"acest[]<>/MASKEP")]
            return DebertaV2Tokenizer(vocab=pieces, unk_id=1)


@pytest.fixture(params=NAMES)
def hf(request: pytest.FixtureRequest) -> Any:
    """Each of the transformers tokenizers."""
    return build(request.param)


@pytest.fixture
def roberta() -> Any:
    return build("roberta")


@pytest.fixture
def bert() -> Any:
    return build("bert")


@pytest.fixture
def words() -> tuple[str, ...]:
    """Words that are one piece for the tokenizers above, except that RoBERTa splits some."""
    return WORDS
