"""How dev is cut into a part for fitting calibrators and a part that is reported, by name.

What is reported must not have been used to select or to fit, so a cut is made once, here.  A new
way to cut is a function from train and dev to `Parts`, entered in `CUTS`; it may take from train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example

Examples = tuple[Example, ...]


class Parts(NamedTuple):
    """The three uses of labelled texts, kept apart."""

    train: Examples
    fit: Examples
    test: Examples


def words(example: Example) -> tuple[str, str | None]:
    """What makes two examples the same text, whatever their ids and labels."""
    return (example.text, example.text_pair)


def text_hash(example: Example, purpose: str) -> int:
    """A number below 2**256 that depends on the text, or pair, and on nothing else.

    `purpose` keeps the cuts independent of one another: with one hash for all of them, a dev set
    held out of train by its small hashes would be anything but a fair draw for the next cut.
    """
    written = "\x00".join((purpose, example.text, example.text_pair or ""))
    return int.from_bytes(hashlib.sha256(written.encode("utf-8")).digest(), "big")


def hash_halves(train: Sequence[Example], dev: Sequence[Example]) -> Parts:
    """Two halves of dev by the order of the texts' hashes; both keep the order of the file.

    Who is in which half does not depend on the order of the file.  Equal texts are always in the
    same half, and the halves are as equal as this allows (an odd one more goes to the reported).
    """
    groups: dict[tuple[str, str | None], list[int]] = {}
    for position, example in enumerate(dev):
        groups.setdefault(words(example), []).append(position)
    by_hash = sorted(groups.values(), key=lambda group: text_hash(dev[group[0]], "halves"))
    fit: set[int] = set()
    for group in by_hash[:-1]:
        if not fit or len(fit) + len(group) <= len(dev) // 2:
            fit.update(group)
    return Parts(
        tuple(train),
        tuple(example for position, example in enumerate(dev) if position in fit),
        tuple(example for position, example in enumerate(dev) if position not in fit),
    )


def file_halves(train: Sequence[Example], dev: Sequence[Example]) -> Parts:
    """The reference's cut: first and last half in file order, an odd middle example in neither."""
    half = len(dev) // 2
    return Parts(tuple(train), tuple(dev[:half]), tuple(dev[len(dev) - half :]))


CUTS: dict[str, Callable[[Sequence[Example], Sequence[Example]], Parts]] = {
    "hash_halves": hash_halves,
    "file_halves": file_halves,
}


def check_cut(name: str) -> None:
    """Raise `InputError` for a name that is not in `CUTS`, before anything is read."""
    if name not in CUTS:
        raise InputError(
            f"task.split is {name!r}.", " | ".join(CUTS), "Set task.split=hash_halves."
        )


def cut(name: str, train: Sequence[Example], dev: Sequence[Example]) -> Parts:
    """Cut by the name given in `task.split`.

    Raises:
        InputError: for an unknown name, fewer than two dev examples, or an empty part.
    """
    check_cut(name)
    if len(dev) < 2:
        raise InputError(
            f"The dev set has {len(dev)} examples.",
            "at least 2, one to fit calibrators on and one to report (hundreds, to mean anything)",
            "Give a larger dev set, or hold out more of train (task.dev_fraction).",
        )
    parts = CUTS[name](train, dev)
    if not parts.fit or not parts.test:
        raise InputError(
            f"All {len(dev)} dev examples have the same text, which {name} never parts.",
            "at least 2 different texts in dev",
            "Give a larger dev set.",
        )
    return parts


def halves(dev: Sequence[Example], name: str) -> tuple[Examples, Examples]:
    """The fit half and the reported half of dev, by the name of the cut."""
    parts = cut(name, (), dev)
    return parts.fit, parts.test


def held_out(train: Sequence[Example], fraction: float) -> tuple[Examples, Examples]:
    """Train without, and dev as, about `fraction` of the texts; equal texts stay together.

    A text's side depends on nothing but the text: rows added to a file move no other row.
    """
    assert 0 < fraction < 1, fraction
    # Compared as whole numbers: a hash has 256 bits, a float 53.
    bound = int(fraction * 2**64) << 192
    inside = [text_hash(example, "held out") < bound for example in train]
    return (
        tuple(example for example, is_in in zip(train, inside, strict=True) if not is_in),
        tuple(example for example, is_in in zip(train, inside, strict=True) if is_in),
    )


def subset(train: Sequence[Example], size: int) -> Examples:
    """The `size` examples with the smallest hashes, in file order: no seed, small within large."""
    order = sorted(range(len(train)), key=lambda i: (text_hash(train[i], "subset"), train[i].id))
    return tuple(train[i] for i in sorted(order[:size]))
