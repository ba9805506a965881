"""Label names: one spelling for each label, whatever type a file gives it, and one order."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from calib_ebm.errors import InputError
from calib_ebm.text.rows import Reading, Row

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_BOOLEANS = ("true", "false")


def label_name(value: Any) -> str:
    """The one spelling of a label, `""` where there is none.

    >>> [label_name(value) for value in (1, "1", 1.0, " 1.0 ", "01", True, "good", None)]
    ['1', '1', '1', '1', '01', 'true', 'good', '']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    name = str(value).strip()
    whole = _WHOLE.fullmatch(name)
    if whole:
        return "0" if whole[1] == "-0" else whole[1]
    return name.lower() if name.lower() in _BOOLEANS else name


def _order(name: str) -> tuple[int, float, str]:
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (1, 0.0, name) if math.isnan(number) else (0, number, name)


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names in order: numbers as numbers, then words.

    >>> sorted_names(["10", "9", "good", "9", "-1"])
    ('-1', '9', '10', 'good')
    """
    return tuple(sorted(set(names), key=_order))


def given_names(labels: Sequence[Any]) -> tuple[str, ...]:
    """Check the list in `task.labels`.

    Raises:
        InputError: for fewer than two labels, an empty one, or one that occurs twice.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        labels = [labels]
    names = tuple(label_name(value) for value in labels)
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise InputError(
            f"task.labels is [{', '.join(names)}].",
            "two or more labels, none empty, none twice (1, '1' and 1.0 are the same label)",
            "Set e.g. task.labels=[negative,positive], or task.labels=null to take train's.",
        )
    return names


def found_names(names: Iterable[str], rows: int, where: str) -> tuple[str, ...]:
    """The labels that occur in train, in order.

    Raises:
        InputError: for fewer than two labels, or when nearly every row has one of its own.
    """
    labels = sorted_names(names)
    if len(labels) < 2:
        raise InputError(
            f"{where}: train has only the label {labels[0]!r}."
            if labels
            else f"{where}: no row has a text.",
            "texts of at least two classes",
            "Give a train set with more classes, or check task.text and task.label.",
        )
    if len(labels) > max(20, rows // 2):
        raise InputError(
            f"{where}: the label column has {len(labels)} different values in {rows} rows.",
            "a column of class labels, each of them on several rows",
            "Set task.label to the column of labels, or list them all in task.labels.",
        )
    return labels


def label_index(names: tuple[str, ...], owner: str, reading: Reading) -> Callable[[Row], int]:
    """A function from a row to the index of its label among `names`, which belong to `owner`."""
    index_of = {name: index for index, name in enumerate(names)}

    def index(row: Row) -> int:
        if row.label not in index_of:
            raise InputError(
                f"{reading.at(row.number)}: the label is {row.label!r}.",
                f"the labels of {owner}: {', '.join(names)}",
                "Correct the row, or check that the file belongs to this task.",
            )
        return index_of[row.label]

    return index
