"""What two runs must share to be compared text by text, and how they differ where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calib_ebm.report.files import Predictions, RunFolder
from calib_ebm.report.numbers import count


@dataclass(frozen=True)
class DevSet:
    """Reported texts by their ids, in the order of these, and what they are labelled with.

    Attributes:
        digest: of the file that the texts came from; None where it is not known, as of tables.
        names: of the classes; None where a table has only their numbers.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: int
    digest: str | None
    names: tuple[str, ...] | None


def dev_set(run: RunFolder, test: Predictions) -> DevSet:
    """The dev set of a run or a table."""
    order = np.argsort(np.asarray(test.ids))
    names = run.run.labels
    numbered = run.method is not None and names == tuple(map(str, range(len(names))))
    return DevSet(
        ids=tuple(test.ids[row] for row in order),
        labels=tuple(test.labels_N[order].tolist()),
        classes=len(names),
        digest=str(run.run.data_digests.get("dev", "")) or None,
        names=None if numbered else names,
    )


def filled(sets: Sequence[DevSet]) -> list[DevSet]:
    """The sets with what is unknown of one as it is with others of the same ids and labels."""
    digests: dict[DevSet, Counter[str]] = {}
    names: dict[DevSet, Counter[tuple[str, ...]]] = {}
    for one in sets:
        if one.digest is not None:
            digests.setdefault(_bare(one), Counter())[one.digest] += 1
        if one.names is not None:
            names.setdefault(_bare(one), Counter())[one.names] += 1
    return [
        replace(
            one,
            digest=one.digest or _usual(digests.get(_bare(one))),
            names=one.names or _usual(names.get(_bare(one))),
        )
        for one in sets
    ]


def _bare(one: DevSet) -> DevSet:
    return replace(one, digest=None, names=None)


def _usual(counted: Counter[Any] | None) -> Any:
    return counted.most_common(1)[0][0] if counted else None


def apart(one: DevSet, other: DevSet) -> str:
    """In what a set differs from the one that others have, in a sentence."""
    if one.classes != other.classes:
        return f"It has {one.classes} classes, they have {other.classes}."
    if one.ids != other.ids:
        alone = sorted({*one.ids} - {*other.ids}) or sorted({*other.ids} - {*one.ids})
        return (
            f"It reports {count(len(one.ids), 'text')}, they report {len(other.ids):,}; the id "
            f"{alone[0]!r} is on one side only."
        )
    at = next((row for row, label in enumerate(one.labels) if label != other.labels[row]), None)
    if at is not None:
        return f"{one.ids[at]!r} has the label {one.labels[at]} here and {other.labels[at]} there."
    if one.names != other.names:
        return f"Its classes are {_listed(one.names)}, theirs {_listed(other.names)}."
    return "Its texts come from another file."


def _listed(names: tuple[str, ...] | None) -> str:
    return ", ".join(names) if names else "not named"
