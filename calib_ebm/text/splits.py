"""Which texts are learned from, which calibrators are fitted on, and which are reported, by name.

    hash_halves    calibrators on one half of dev, by the texts' hashes; the other is reported
    file_halves    the reference's: first and second half of dev in file order
    train_holdout  calibrators on a slice of train that is then not trained on; all of dev reported
    crossfit       all of dev is reported, each of k folds after a calibrator fitted on the others

What is reported must not have been used to select or to fit, so a cut is made once, here, and one
that lets a text be on both sides is refused.  A new way to cut is a function from train, dev and
`CutOptions` to `Parts`, entered in `CUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from calib_ebm.dealing import Words, fit_half, fold_of_each, words_hash
from calib_ebm.errors import InputError
from calib_ebm.shapes import Example

Examples = tuple[Example, ...]


class Parts(NamedTuple):
    """The three uses of labelled texts, kept apart."""

    train: Examples
    fit: Examples
    test: Examples
    folds: tuple[int, ...] | None = None
    """`crossfit` only, where `fit` and `test` are both all of dev: the fold of each text."""


class CutOptions(NamedTuple):
    """What some of the cuts can be told."""

    holdout_fraction: float = 0.1
    """`train_holdout`: the share of train that calibrators are fitted on."""
    folds: int = 5
    """`crossfit`: k."""


def words(example: Example) -> Words:
    """What makes two examples the same text, whatever their ids and labels."""
    return (example.text, example.text_pair)


def text_hash(example: Example, purpose: str) -> int:
    """A number below 2**256 that depends on the text, or pair, and on the purpose alone."""
    return words_hash(words(example), purpose)


def hash_halves(
    train: Sequence[Example], dev: Sequence[Example], _: CutOptions | None = None
) -> Parts:
    """Two halves of dev by the order of the texts' hashes; both keep the order of the file.

    Who is in which half does not depend on the order of the file.  Equal texts are always in the
    same half, and the halves are as equal as this allows (an odd one more goes to the reported).
    """
    fit = fit_half([words(example) for example in dev])
    return Parts(
        tuple(train),
        tuple(example for position, example in enumerate(dev) if position in fit),
        tuple(example for position, example in enumerate(dev) if position not in fit),
    )


def file_halves(
    train: Sequence[Example], dev: Sequence[Example], _: CutOptions | None = None
) -> Parts:
    """The reference's cut: first and last half in file order, an odd middle example in neither.

    Texts of the first half that also stand in the second, which the reference lets leak, are left
    out of the first; what is reported is the reference's.
    """
    half = len(dev) // 2
    test = tuple(dev[len(dev) - half :])
    reported = {*map(words, test)}
    return Parts(tuple(train), tuple(e for e in dev[:half] if words(e) not in reported), test)


def train_holdout(
    train: Sequence[Example], dev: Sequence[Example], options: CutOptions | None = None
) -> Parts:
    """Calibrators are fitted on a share of train by hash, which is not trained on; dev is reported.

    A text of that share that also stands in dev cannot calibrate, so it stays in train.
    """
    fraction = (options or CutOptions()).holdout_fraction
    if not 0 < fraction < 1:
        raise InputError(
            f"task.holdout_fraction is {fraction}.",
            "a number above 0 and below 1",
            "Set task.holdout_fraction=0.1.",
        )
    reported = {*map(words, dev)}
    chosen = {e.id for e in held_out(train, fraction, "holdout")[1] if words(e) not in reported}
    return Parts(
        tuple(e for e in train if e.id not in chosen),
        tuple(e for e in train if e.id in chosen),
        tuple(dev),
    )


def crossfit(
    train: Sequence[Example], dev: Sequence[Example], options: CutOptions | None = None
) -> Parts:
    """All of dev in both parts, in k folds by the order of the texts' hashes.

    Equal texts are always in the same fold, and the folds are as equal as this allows.
    """
    folds = (options or CutOptions()).folds
    fold_of = fold_of_each([words(example) for example in dev], folds, "task.folds")
    return Parts(tuple(train), tuple(dev), tuple(dev), fold_of)


CUTS: dict[str, Callable[[Sequence[Example], Sequence[Example], CutOptions], Parts]] = {
    "hash_halves": hash_halves,
    "file_halves": file_halves,
    "train_holdout": train_holdout,
    "crossfit": crossfit,
}


def check_cut(name: str) -> None:
    """Raise `InputError` for a name that is not in `CUTS`, before anything is read."""
    if name not in CUTS:
        raise InputError(
            f"task.split is {name!r}.", " | ".join(CUTS), "Set task.split=hash_halves."
        )


def cut(
    name: str,
    train: Sequence[Example],
    dev: Sequence[Example],
    options: CutOptions | None = None,
) -> Parts:
    """Cut by the name given in `task.split`.

    Raises:
        InputError: for an unknown name, fewer than two dev examples, an empty part, or a text
            that would be on two sides.
    """
    check_cut(name)
    if len(dev) < 2:
        raise InputError(
            f"The dev set has {len(dev)} examples.",
            "at least 2, one to fit calibrators on and one to report (hundreds, to mean anything)",
            "Give a larger dev set, or hold out more of train (task.dev_fraction).",
        )
    parts = CUTS[name](train, dev, options or CutOptions())
    if not parts.fit or not parts.test:
        raise _empty(name, len(train), len(dev))
    refuse_overlap(parts)
    return parts


def _empty(name: str, train: int, dev: int) -> InputError:
    """The error for a cut that leaves nothing to fit on or nothing to report."""
    if name == "train_holdout":
        return InputError(
            f"train_holdout finds nothing to fit calibrators on in {train} training texts.",
            "a share of train with texts that do not stand in dev",
            "Raise task.holdout_fraction, or set task.split=hash_halves.",
        )
    return InputError(
        f"All {dev} dev examples have the same text, or are left out of the fit half by {name}: "
        "a part would be empty.",
        "at least 2 different texts in dev",
        "Give a larger dev set.",
    )


def refuse_overlap(parts: Parts) -> None:
    """Raise `InputError` where an example is in two parts, or a reported text was fitted on.

    Crossfitting has one part for both uses: there no text may be in two folds.
    """
    seen: dict[str, str] = {}
    halves = (("fit", parts.fit),) if parts.folds is not None else ()
    for name, part in halves or (("fit", parts.fit), ("test", parts.test)):
        for example in part:
            if example.id in seen:
                raise _overlap(f"The example {example.id!r} is", f"{seen[example.id]} and {name}")
            seen[example.id] = name
    if both := [e.id for e in parts.train if e.id in seen]:
        raise _overlap(f"The example {both[0]!r} is", f"train and {seen[both[0]]}")
    if parts.folds is not None:
        place: dict[tuple[str, str | None], int] = {}
        for example, fold in zip(parts.fit, parts.folds, strict=True):
            if place.setdefault(words(example), fold) != fold:
                raise _overlap(f"The text of {example.id!r} is", "two folds")
        return
    fitted = {words(example): example.id for example in parts.fit}
    for example in parts.test:
        if words(example) in fitted:
            ids = f"{fitted[words(example)]!r} and {example.id!r}"
            raise _overlap(f"One text, that of {ids}, is", "fit and test")


def _overlap(what: str, where: str) -> InputError:
    return InputError(
        f"{what} in {where}.",
        "parts without a text in common, for what is reported must not have been fitted on",
        "Take another cut (task.split=hash_halves keeps equal texts together).",
    )


def held_out(
    train: Sequence[Example], fraction: float, purpose: str = "held out"
) -> tuple[Examples, Examples]:
    """Train without, and dev as, about `fraction` of the texts; equal texts stay together.

    A text's side depends on nothing but the text: rows added to a file move no other row.
    """
    assert 0 < fraction < 1, fraction
    # Compared as whole numbers: a hash has 256 bits, a float 53.
    bound = int(fraction * 2**64) << 192
    inside = [text_hash(example, purpose) < bound for example in train]
    return (
        tuple(example for example, is_in in zip(train, inside, strict=True) if not is_in),
        tuple(example for example, is_in in zip(train, inside, strict=True) if is_in),
    )


def subset(train: Sequence[Example], size: int) -> Examples:
    """The `size` examples with the smallest hashes, in file order: no seed, small within large."""
    order = sorted(range(len(train)), key=lambda i: (text_hash(train[i], "subset"), train[i].id))
    return tuple(train[i] for i in sorted(order[:size]))
