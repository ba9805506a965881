"""A stand-in for the classifier's tokenizer, and noise models small enough to enumerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch

from calib_ebm.noise.lm import NoiseLm, SmallOptions, build_small
from calib_ebm.shapes import Encoded

SPECIALS = 3
"""Ids 0, 1, 2 of the stand-in frame texts; content follows."""


class WordTokenizer:
    """A word is a token: `w3` is 3 + SPECIALS."""

    def __init__(self, words: int = 8, max_length: int = 12) -> None:
        self.vocabulary = {f"<s{i}>": i for i in range(SPECIALS)}
        self.vocabulary |= {f"w{i}": SPECIALS + i for i in range(words)}
        self.special_ids = frozenset(range(SPECIALS))
        self.digest = f"words-{words}"
        self.max_length = max_length
        self.hf = SimpleNamespace(unk_token_id=None)

    def encode_pieces(self, text: str) -> list[int]:
        return [self.vocabulary[word] for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        words = {i: word for word, i in self.vocabulary.items()}
        return " ".join(words[i] for i in ids)

    def cut(self, ids_a: list[int], ids_b: list[int] | None) -> tuple[list[int], list[int] | None]:
        if ids_b is None:
            return ids_a[: self.max_length - 2], None
        half = (self.max_length - 3) // 2
        return ids_a[:half], ids_b[:half]


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer()


@pytest.fixture
def singles() -> list[Encoded]:
    rows = [([3, 4, 5], 0), ([4, 5], 1), ([5, 5, 3, 4], 0), ([3], 1)]
    return [Encoded(ids, None, label) for ids, label in rows]


@pytest.fixture
def pairs() -> list[Encoded]:
    return [Encoded([3, 4], [5], 0), Encoded([4], [5, 3], 1), Encoded([5, 5], [3, 4], 0)]


@pytest.fixture
def tiny_lm(tokenizer: WordTokenizer) -> Callable[..., NoiseLm]:
    """Builds noise models with random weights, large enough to make draws uneven."""

    def build(texts: Sequence[Encoded], *, masked: bool = False, seed: int = 0) -> NoiseLm:
        torch.manual_seed(seed)
        options = SmallOptions(layers=2, width=16, heads=2, dropout=0.1)
        lm = build_small(texts, tokenizer, 2, 40, options, masked=masked)
        with torch.no_grad():
            for parameter in lm.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.4)
        return lm

    return build
