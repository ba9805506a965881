from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.noise.vocabulary import (
    LmVocabulary,
    Translator,
    matched_vocabulary,
    own_vocabulary,
    structural_ids,
)
from calib_ebm.shapes import Encoded


class OtherTokenizer:
    """Knows words under ids of its own; `cut_letters` makes it cut known words into letters."""

    def __init__(self, words: Sequence[str], cut_letters: bool = False) -> None:
        self.vocabulary = {"<end>": 0} | {w: i + 1 for i, w in enumerate(words)}
        self.special_ids = frozenset({0})
        self.cut_letters = cut_letters
        self.hf = SimpleNamespace(unk_token_id=None)

    def encode_pieces(self, text: str) -> list[int]:
        units = list(text.replace(" ", "")) if self.cut_letters else text.split()
        return [self.vocabulary[unit] for unit in units]

    def decode(self, ids: Sequence[int]) -> str:
        words = {i: word for word, i in self.vocabulary.items()}
        return ("" if self.cut_letters else " ").join(words[i] for i in ids)


def test_an_own_vocabulary_holds_the_pieces_of_the_training_texts_and_no_others(
    singles: list[Encoded], tokenizer: Any
) -> None:
    vocabulary = own_vocabulary(singles, structural_ids(tokenizer), classes=2)
    assert vocabulary.content_of == (3, 4, 5)
    assert vocabulary.size == 3 + 6 + 2
    unknown = vocabulary.symbols.unknown
    assert vocabulary.to_lm([5, 9, 3]) == [2, unknown, 0]  # 9 was never seen
    assert vocabulary.to_lm([0, 3]) == [unknown, 0]  # 0 frames texts
    assert vocabulary.drawable_V.tolist() == [True] * 3 + [False] * 8


@given(st.lists(st.sampled_from([3, 4, 5]), max_size=9))
def test_known_pieces_come_back(ids: list[int]) -> None:
    vocabulary = own_vocabulary([Encoded([5, 4, 3], None, 0)], frozenset({0}), classes=3)
    assert vocabulary.to_content(vocabulary.to_lm(ids)) == ids
    again = LmVocabulary.from_plain(json.loads(json.dumps(vocabulary.to_plain())), None)
    assert again == vocabulary


def test_the_same_pieces_under_other_ids_are_mapped(singles: list[Encoded], tokenizer: Any) -> None:
    other = OtherTokenizer(["x", "w2", "w1", "w0", "w7"])
    vocabulary = matched_vocabulary(singles, tokenizer, other, lm_size=10, classes=2)
    assert vocabulary.token_path == "exact_map"
    assert vocabulary.to_lm([3, 4, 5]) == [4, 3, 2]
    assert vocabulary.to_content([4, 3, 2]) == [3, 4, 5]
    assert vocabulary.symbols.mask == 10
    drawable = vocabulary.drawable_V
    assert not drawable[1], "a piece that the classifier lacks"
    assert not drawable[0], "what frames texts"
    assert drawable[5], "a known piece, though no training text holds it"


@pytest.mark.parametrize(
    "other",
    [OtherTokenizer(["w2", "w1"]), OtherTokenizer([*"w01234567", "w0", "w1", "w2"], True)],
    ids=["a piece is missing", "cuts otherwise"],
)
def test_else_the_way_goes_over_the_text(
    singles: list[Encoded], tokenizer: Any, other: OtherTokenizer
) -> None:
    vocabulary = matched_vocabulary(singles, tokenizer, other, lm_size=20, classes=2)
    assert vocabulary.token_path == "decode_encode"
    assert vocabulary.translator == Translator(tokenizer, other)
    assert not vocabulary.drawable_V[other.vocabulary["<end>"]]
    assert vocabulary.drawable_V[other.vocabulary["w1"]]


def test_over_the_text_each_half_goes_alone(tokenizer: Any) -> None:
    other = OtherTokenizer([f"w{i}" for i in range(7, -1, -1)] + ["unrelated"])
    content_of = (-1, *[0] * 9)
    symbols = own_vocabulary([Encoded([3], None, 0)], frozenset(), 2).symbols
    vocabulary = LmVocabulary("decode_encode", symbols, content_of, Translator(tokenizer, other))
    text = vocabulary.text(Encoded([3, 4], [5], 1))
    assert (text.ids_a, text.ids_b, text.label) == ([8, 7], [6], 1)
    assert vocabulary.to_content(text.ids_a) == [3, 4]


def test_unknown_pieces_are_content_but_frames_are_not(tokenizer: Any) -> None:
    tokenizer.hf.unk_token_id = 2
    assert structural_ids(tokenizer) == {0, 1}


def test_texts_without_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="hold no tokens"):
        own_vocabulary([Encoded([], None, 0)], frozenset(), 2)
