"""Dealing texts into halves and folds by their hashes, whatever they were read from.

A text is dealt by what it is and never by its place, so that rows in another order, or further
rows, are no reason for it to change sides more than it must. Equal texts stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from calib_ebm.errors import InputError

Words = tuple[str, str | None]
"""What makes two texts the same: the text and its second part, or an id alone."""


def words_hash(words: Words, purpose: str) -> int:
    """A number below 2**256 that depends on the words, and on nothing else.

    `purpose` keeps the cuts independent of one another: with one hash for all of them, a dev set
    held out of train by its small hashes would be anything but a fair draw for the next cut.
    """
    written = "\x00".join((purpose, words[0], words[1] or ""))
    return int.from_bytes(hashlib.sha256(written.encode("utf-8")).digest(), "big")


def fit_half(every: Sequence[Words]) -> set[int]:
    """Places of the half that calibrators are fitted on; the others are reported.

    The halves are as equal as equal texts allow; an odd one more goes to the reported.
    """
    fit: set[int] = set()
    for group in _by_hash(every, "halves")[:-1]:
        if not fit or len(fit) + len(group) <= len(every) // 2:
            fit.update(group)
    return fit


def fold_of_each(every: Sequence[Words], folds: int, setting: str) -> tuple[int, ...]:
    """The fold of each text, in folds that are as equal as equal texts allow.

    Args:
        every: the texts.
        folds: how many.
        setting: what the number is called, for the error.

    Raises:
        InputError: there are not that many different texts.
    """
    groups = _by_hash(every, "folds")
    _check_folds(folds, len(groups), setting)
    sizes, fold_of = [0] * folds, [0] * len(every)
    for group in groups:
        smallest = sizes.index(min(sizes))
        sizes[smallest] += len(group)
        for place in group:
            fold_of[place] = smallest
    return tuple(fold_of)


def _check_folds(folds: int, texts: int, setting: str) -> None:
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= texts:
        raise InputError(
            f"{setting} is {folds}.",
            f"a whole number from 2 to {max(texts, 2)}, the different texts that there are",
            f"Set {setting}=5.",
        )


def _by_hash(every: Sequence[Words], purpose: str) -> list[list[int]]:
    """Places in the order of the hashes, those of equal texts in one group."""
    groups: dict[Words, list[int]] = {}
    for place, words in enumerate(every):
        groups.setdefault(words, []).append(place)
    return [places for _, places in sorted(groups.items(), key=lambda g: words_hash(g[0], purpose))]
