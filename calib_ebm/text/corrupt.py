"""Texts made worse on purpose: typing errors and cuts, the same for a text in every run.

    typos:0.1      each word suffers, with probability .1, one slip: a neighbouring key, two letters
                   swapped, a letter dropped or a letter doubled
    truncate:0.5   only the first half of the words is left, at least one
    tokens:0.1     each token is replaced with probability .1 (`tokens/corrupt.py`)

What happens to a text depends on its id, the kind and the seed alone, not on the rate, the other
texts or their order: what is wrong at .1 is also wrong at .2, so that levels are compared on the
same slips, and runs on the same texts.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example

KINDS = {
    "tokens": "the probability with which each token is replaced",
    "typos": "the probability with which each word suffers a slip",
    "truncate": "the share of words that is left",
}
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
OFFSETS = (0.0, 0.25, 0.75)
"""How far each row of keys stands to the right, in keys."""
SLIPS = ("neighbour", "swap", "drop", "double")


class Corruption(NamedTuple):
    """A kind of `KINDS`, and how much of it."""

    kind: str
    rate: float

    @property
    def name(self) -> str:
        """As in names of folders.

        >>> Corruption("typos", 0.1).name
        'typos-0.1'
        """
        return f"{self.kind}-{self.rate:g}"


def parse_corruption(given: str) -> Corruption:
    """Read e.g. `tokens:0.1`.

    Raises:
        InputError: for an unknown kind, or a rate that is none.
    """
    kind, _, rate = given.strip().partition(":")
    try:
        share = float(rate)
    except ValueError:
        share = math.nan
    fits = 0 < share < 1 or (share == 1 and kind != "truncate")
    if kind not in KINDS or not fits:
        raise InputError(
            f"corrupt holds {given.strip()!r}.",
            "; ".join(f"{name}:RATE, {meaning}" for name, meaning in KINDS.items())
            + "; rates above 0 and up to 1 (truncate: below 1)",
            "Write e.g. corrupt=tokens:0.1,tokens:0.2,typos:0.1,truncate:0.5.",
        )
    return Corruption(kind, share)


def generator_for(example_id: str, kind: str, seed: int) -> np.random.Generator:
    """The random numbers of one text: the same for every rate."""
    digest = hashlib.sha256("\x00".join((str(seed), kind, example_id)).encode("utf-8")).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def corrupt_examples(
    examples: Sequence[Example], corruption: Corruption, seed: int
) -> tuple[Example, ...]:
    """The texts, made worse; ids and labels stay. Tokens are replaced where they are made."""
    if corruption.kind == "tokens":
        return tuple(examples)
    worse = []
    for example in examples:
        rng = generator_for(example.id, corruption.kind, seed)
        text = _corrupt(example.text, corruption, rng)
        pair = None
        if example.text_pair is not None:
            pair = _corrupt(example.text_pair, corruption, rng)
        worse.append(example._replace(text=text, text_pair=pair))
    return tuple(worse)


def _corrupt(text: str, corruption: Corruption, rng: np.random.Generator) -> str:
    if corruption.kind == "truncate":
        return truncate(text, corruption.rate)
    return with_typos(text, corruption.rate, rng)


def truncate(text: str, share: float) -> str:
    """The first words of a text, `share` of them rounded up.

    >>> truncate("a very  long text", 0.6)
    'a very  long'
    """
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    # .1 * 30 is 3.0000000000000004 in binary, and no reason for a fourth word.
    keep = max(1, math.ceil(share * len(ends) - 1e-9))
    return text[: ends[keep - 1]] if ends else text


def with_typos(text: str, rate: float, rng: np.random.Generator) -> str:
    """A text in which each word that has a letter suffers a slip with probability `rate`."""
    pieces = re.split(r"(\s+)", text)
    for place in range(0, len(pieces), 2):
        # Drawn for every word, hit or not, so that the slips at a low rate are among those at a
        # higher one.
        chance, slip, where, which = rng.random(4)
        if chance < rate:
            pieces[place] = slipped(pieces[place], SLIPS[int(slip * len(SLIPS))], where, which)
    return "".join(pieces)


def slipped(word: str, slip: str, where: float, which: float) -> str:
    """A word with one slip; one that it is too short for is a doubled letter instead.

    Args:
        word: any word; without a letter it stays as it is.
        slip: one of `SLIPS`.
        where: below 1, chooses among the places where the slip changes the word.
        which: below 1, chooses among the neighbouring keys.

    >>> slipped("film", "swap", 0.0, 0.0), slipped("film", "drop", 0.99, 0.0)
    ('iflm', 'fil')
    """
    letters = [place for place, letter in enumerate(word) if letter.isalpha()]
    if slip == "neighbour":
        letters = [place for place in letters if neighbours(word[place])] or letters
        if letters and not neighbours(word[letters[0]]):
            slip = "double"  # no key of this keyboard
    elif slip == "swap":
        apart = [p for p in letters if p + 1 in letters and word[p] != word[p + 1]]
        letters, slip = (apart, slip) if apart else (letters, "double")
    elif slip == "drop" and len(word) == 1:
        slip = "double"
    if not letters:
        return word
    at = letters[int(where * len(letters))]
    head, letter, tail = word[:at], word[at], word[at + 1 :]
    if slip == "swap":
        return head + tail[0] + letter + tail[1:]
    if slip == "drop":
        return head + tail
    if slip == "double":
        return head + letter + letter + tail
    keys = neighbours(letter)
    return head + keys[int(which * len(keys))] + tail


def neighbours(letter: str) -> str:
    """The keys around a letter's on a QWERTY keyboard, in its case; none for other letters.

    >>> neighbours("a"), neighbours("Q"), neighbours("é")
    ('qwsz', 'WA', '')
    """
    place = {
        key: (row, OFFSETS[row] + at)
        for row, keys in enumerate(KEYS)
        for at, key in enumerate(keys)
    }
    if letter.lower() not in place:
        return ""
    row, at = place[letter.lower()]
    near = "".join(
        key
        for key, (other, there) in place.items()
        if abs(other - row) <= 1 and abs(there - at) <= 1 and key != letter.lower()
    )
    return near.upper() if letter.isupper() else near
