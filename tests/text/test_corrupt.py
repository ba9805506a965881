"""Texts made worse: by how much, how, and the same way each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.corrupt import (
    SLIPS,
    Corruption,
    corrupt_examples,
    neighbours,
    parse_corruption,
    slipped,
    truncate,
)

WORDS = ("the", "acting", "feels", "honest", "and", "story", "never", "loses", "its", "charm")


def examples(n: int) -> tuple[Example, ...]:
    rng = np.random.default_rng(0)
    return tuple(
        Example(f"dev-{i}", " ".join(rng.choice(WORDS, size=20)), None, i % 2) for i in range(n)
    )


def changed(before: str, after: str) -> list[bool]:
    return [a != b for a, b in zip(before.split(), after.split(), strict=True)]


def test_each_word_slips_with_the_rate() -> None:
    texts = examples(200)
    worse = corrupt_examples(texts, Corruption("typos", 0.2), 0)
    slips = [c for a, b in zip(texts, worse, strict=True) for c in changed(a.text, b.text)]
    # 4,000 words, every one of which a slip changes: standard deviation sqrt(4000 * .16) = 25.3.
    assert abs(sum(slips) - 800) < 5 * 25.3
    assert [(e.id, e.label) for e in worse] == [(e.id, e.label) for e in texts]
    everything = corrupt_examples(texts, Corruption("typos", 1.0), 0)
    assert all(c for a, b in zip(texts, everything, strict=True) for c in changed(a.text, b.text))


@pytest.mark.parametrize("kind", ["typos", "truncate"])
def test_a_text_s_fate_depends_on_its_id_kind_and_seed_alone(kind: str) -> None:
    texts, corruption = examples(30), Corruption(kind, 0.5)
    worse = corrupt_examples(texts, corruption, 0)
    assert corrupt_examples(texts[::-1], corruption, 0) == worse[::-1]
    assert corrupt_examples(texts[7:8], corruption, 0) == worse[7:8]
    if kind == "typos":  # the controls
        assert corrupt_examples(texts, corruption, 1) != worse
        renamed = [e._replace(id=f"other {e.id}") for e in texts]
        assert [e.text for e in corrupt_examples(renamed, corruption, 0)] != [e.text for e in worse]


def test_the_slips_of_a_low_rate_are_among_those_of_a_higher_one() -> None:
    texts = examples(50)
    low, high = (corrupt_examples(texts, Corruption("typos", rate), 0) for rate in (0.1, 0.4))
    more = 0
    for text, a, b in zip(texts, low, high, strict=True):
        words = zip(text.text.split(), a.text.split(), b.text.split(), strict=True)
        for clean, slight, strong in words:
            assert slight in (clean, strong)
            more += strong != slight
    assert more > 100


@given(
    st.text(min_size=1, max_size=12).filter(lambda w: not any(c.isspace() for c in w)),
    st.sampled_from(SLIPS),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
)
def test_a_slip_is_one_edit_and_spares_what_has_no_letter(
    word: str, slip: str, where: float, which: float
) -> None:
    worse = slipped(word, slip, where, which)
    assert abs(len(worse) - len(word)) <= 1
    assert (worse != word) == any(letter.isalpha() for letter in word)
    assert worse and not any(c.isspace() for c in worse)


def test_every_slip_by_hand() -> None:
    assert slipped("film", "double", 0.3, 0.0) == "fiilm"
    assert slipped("Film", "neighbour", 0.0, 0.99) == "Vilm"  # r t d g c v surround f
    assert neighbours("f") == "rtdgcv"
    assert slipped("a", "drop", 0.0, 0.0) == slipped("a", "swap", 0.0, 0.0) == "aa"
    assert slipped("aab", "swap", 0.0, 0.0) == "aba"  # a swap of equal letters would be none
    assert slipped("3.14", "drop", 0.0, 0.0) == "3.14"


def test_neighbours_are_mutual() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    for letter in letters:
        near = neighbours(letter)
        assert near and letter not in near
        assert all(letter in neighbours(other) for other in near)


@pytest.mark.parametrize(("share", "kept"), [(0.5, 3), (0.1, 1), (0.99, 6), (1 / 3, 2), (0.001, 1)])
def test_truncation_keeps_the_first_words_rounded_up(share: float, kept: int) -> None:
    text = "one  two three\tfour five six"
    assert truncate(text, share).split() == text.split()[:kept]
    assert text.startswith(truncate(text, share))


def test_both_texts_of_a_pair_are_made_worse() -> None:
    pair = Example("dev-0", "one two three four", "five six seven eight", 0)
    (half,) = corrupt_examples([pair], Corruption("truncate", 0.5), 0)
    assert (half.text, half.text_pair) == ("one two", "five six")
    (typos,) = corrupt_examples([pair], Corruption("typos", 1.0), 0)
    assert typos.text_pair is not None
    assert all(changed(pair.text, typos.text))
    assert all(changed("five six seven eight", typos.text_pair))


def test_tokens_are_left_to_the_room_that_makes_them() -> None:
    texts = examples(3)
    assert corrupt_examples(texts, Corruption("tokens", 0.5), 0) == texts


@pytest.mark.parametrize(
    "given",
    [
        "tokens",
        "tokens:",
        "tokens:0",
        "tokens:1.5",
        "tokens:nan",
        "truncate:1",
        "noise:0.1",
        "typos:x",
    ],
)
def test_what_is_no_corruption(given: str) -> None:
    with pytest.raises(InputError, match="corrupt holds"):
        parse_corruption(given)
    assert parse_corruption(" tokens:0.1") == Corruption("tokens", 0.1)
