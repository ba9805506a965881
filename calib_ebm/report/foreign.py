"""A table of predictions from anywhere: csv, tsv, JSON lines or Parquet, whatever its columns.

A run's own predictions.parquet is read by its contract. Any other table has a row per text and

    logits    columns, or one column of lists: outputs before the softmax; or in their place
    probs     probabilities of the classes, or one column alone: that of the second of two classes
    label     the class by its number from 0 or its name; without it the set has no labels
    id, split, energy     where there are such columns

Probabilities become logits by their logarithm, of which the softmax is the probability again. One
below `SMALLEST` is read as `SMALLEST`, for the logarithm of zero is no number: a calibrator then
sees a logit of -27.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calib_ebm.calibration.checks import check_logits, check_probabilities
from calib_ebm.errors import InputError
from calib_ebm.report.columns import Floats
from calib_ebm.report.predictions import SPLITS, Predictions, read_table
from calib_ebm.report.reader import Columns, load

SMALLEST = 1e-12
"""The smallest probability that is told from zero."""


@dataclass(frozen=True)
class TableColumns:
    """Which columns hold what. Empty, or None: those with the usual names.

    Attributes:
        probs: one column a class in the order of the classes, or one column of lists; patterns
            such as `p_*` take what they match in the file's order.
        logits: the same for logits.
        id: of names; without one rows are numbered.
        label: of labels.
        split: of the words fit and test.
        energy: of energies.
    """

    probs: tuple[str, ...] = ()
    logits: tuple[str, ...] = ()
    id: str | None = None
    label: str | None = None
    split: str | None = None
    energy: str | None = None


@dataclass(frozen=True)
class ForeignTable:
    """A table that was read, and what was understood.

    Attributes:
        labels: the classes' names.
        is_cut: whether the table says itself which rows calibrators are fitted on.
        has_ids: whether the ids are the table's own; else its rows were numbered.
        notes: sentences for the person.
    """

    table: Predictions
    labels: tuple[str, ...]
    is_cut: bool
    has_ids: bool
    notes: tuple[str, ...]


def read_foreign(path: Path, columns: TableColumns, labels: Sequence[str]) -> ForeignTable:
    """Read a table.

    Args:
        path: its ending says what it is.
        columns: which columns hold what.
        labels: the classes' names in order; empty: taken from the columns.

    Raises:
        InputError: for a file or a column that is not there, probabilities that are none, logits
            given for them, labels outside the classes, ids that occur twice, gaps.
    """
    read = Columns(path, load(path))
    if read.is_ours() and columns == TableColumns():
        table = _ours(path)
        names = _names(labels, table.logits_NC.shape[1], [], path)
        return ForeignTable(table, names, is_cut=True, has_ids=True, notes=())
    logits_NC, chosen, notes = _logits(read, columns)
    names = _names(labels, logits_NC.shape[1], chosen, path)
    labels_N, absent = _labels(read, columns.label, names)
    own_ids = read.strings(columns.id, "id")
    ids = own_ids or [f"row-{row}" for row in range(read.rows)]
    _refuse_twice(ids, path)
    splits = read.strings(columns.split, "split")
    if splits is not None and set(splits) - set(SPLITS):
        odd = next(split for split in splits if split not in SPLITS)
        raise read.wrong(splits.index(odd), f"is of split {odd!r}", " or ".join(SPLITS))
    table = Predictions(
        ids=tuple(ids),
        splits=tuple(splits or ["test"] * read.rows),
        labels_N=labels_N,
        logits_NC=logits_NC,
        energy_N=read.numbers(columns.energy, "energy"),
    )
    table.check(path)
    return ForeignTable(
        table,
        names,
        is_cut=splits is not None,
        has_ids=own_ids is not None,
        notes=(*notes, *absent),
    )


def _ours(path: Path) -> Predictions:
    """A table with the columns of predictions.parquet, wherever it comes from."""
    try:
        return read_table(path)
    except InputError as error:
        # There may be no run whose command could be run again.
        raise InputError(
            error.given, "a table as `train` or `evaluate` writes it", "Correct the table."
        ) from error


# -------------------------------------------------------------------------------- what they mean


def _logits(read: Columns, columns: TableColumns) -> tuple[Floats, list[str], tuple[str, ...]]:
    """Logits, the columns they were made of, and what a reader should know of that.

    Raises:
        InputError: for columns that are not there, or hold what they should not.
    """
    if columns.logits and columns.probs:
        raise InputError(
            "Both logits= and probs= are given.", "one of them", "Leave one of them out."
        )
    for kind, given in (("logits", columns.logits), ("probs", columns.probs)):
        other = columns.probs if kind == "logits" else columns.logits
        chosen = _chosen(read, kind, given) if given or not other else []
        if chosen:
            values_NC = read.matrix(chosen)
            if kind == "probs":
                return _from_probabilities(read, values_NC, chosen)
            check_logits(torch.from_numpy(values_NC))
            return values_NC, chosen, ()
    raise InputError(
        f"{read.path} has no columns that are known to hold logits or probabilities.",
        f"of its columns ({', '.join(read.names)}) those that begin with prob or logit, or those "
        "that are named",
        "Name them in the order of the classes: probs='p_negative,p_positive' (or logits=).",
    )


def _chosen(read: Columns, kind: str, given: Sequence[str]) -> list[str]:
    """The columns asked for, or those whose names begin as the kind's usual ones."""
    if not given:
        if kind in read.names:
            return [kind]
        return [name for name in read.names if name.lower().startswith(kind.removesuffix("s"))]
    chosen = []
    for pattern in given:
        found = [name for name in read.names if name == pattern]
        found = found or [name for name in read.names if fnmatchcase(name, pattern)]
        if not found:
            raise InputError(
                f"{read.path} has no column {pattern!r} ({kind}=).",
                f"its columns: {', '.join(read.names)}",
                f"Set {kind}= to the right ones, in the order of the classes.",
            )
        chosen += found
    return chosen


def _from_probabilities(
    read: Columns, values_NC: Floats, chosen: list[str]
) -> tuple[Floats, list[str], tuple[str, ...]]:
    notes = []
    if values_NC.shape[1] == 1:
        values_NC = np.concatenate([1 - values_NC, values_NC], axis=1)
        notes.append(f"{chosen[0]} was read as the probability of the second of two classes.")
        chosen = []
    try:
        check_probabilities(torch.from_numpy(values_NC))
    except InputError as error:
        raise InputError(
            f"{read.path} (rows counted from 0): {error.given}",
            error.allowed,
            "If these are logits, name them so: logits=" + ",".join(chosen) + ".",
        ) from error
    tiny = int((values_NC < SMALLEST).sum())
    if tiny:
        notes.append(f"{tiny} probabilities below {SMALLEST:g} were read as {SMALLEST:g}.")
    return np.log(np.maximum(values_NC, SMALLEST)), chosen, tuple(notes)


def _names(
    given: Sequence[str], classes: int, chosen: Sequence[str], path: Path
) -> tuple[str, ...]:
    """The classes' names: as given, else what differs in the columns' names, else numbers."""
    if given:
        if len(given) != classes or len(set(given)) != classes:
            raise InputError(
                f"labels names {', '.join(given)}, and {path} has {classes} classes.",
                "one name for each class, in their order",
                "Correct labels=, or the columns.",
            )
        return tuple(given)
    if len(chosen) == classes:
        shared = commonprefix(list(chosen))  # noqa: RUF071  (of names, not of paths)
        names = [name.removeprefix(shared) for name in chosen]
        if all(names):
            return tuple(names)
    return tuple(str(number) for number in range(classes))


def _labels(
    read: Columns, given: str | None, names: tuple[str, ...]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], tuple[str, ...]]:
    """Class indices, -1 throughout where there are no labels, and a note on that.

    Raises:
        InputError: for labels outside the classes, some labels missing, or names that could as
            well be numbers.
    """
    values = read.column(given, "label")
    written = ["" if value is None else _written(value) for value in values or ()]
    if values is None or {*written} <= {"", "-1"}:
        none = "no column 'label'" if values is None else "no labels"
        note = f"{read.path} has {none}: only figures that need none are computed."
        return np.full(read.rows, -1, dtype=np.int64), (note,)
    numbers = tuple(str(number) for number in range(len(names)))
    by_name, by_number = {*written} <= {*names}, {*written} <= {*numbers}
    if by_name and by_number and names != numbers:
        raise InputError(
            f"{read.path}: the labels {', '.join(sorted({*written}))} are names of classes "
            f"({', '.join(names)}) and could be their numbers from 0 as well.",
            "labels that can be read in one way only",
            "Say what the classes are called: labels=...",
        )
    known = names if not by_number and {*written} & {*names} else numbers
    for row, label in enumerate(written):
        if label not in known:
            shown = repr(label) if label else "missing"
            allowed = f"0 to {len(names) - 1}, or {', '.join(names)}"
            raise read.wrong(row, f"has a label that is {shown}", allowed)
    return np.asarray([known.index(label) for label in written], dtype=np.int64), ()


def _written(value: Any) -> str:
    """A label in one spelling: 1, 1.0 and "1" are the same."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value).strip()


def _refuse_twice(ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for row, one in enumerate(ids):
        if one in seen:
            raise InputError(
                f"{path}: row {row + 1} has the id {one!r}, which an earlier row has.",
                "an id of its own for every row",
                "Make the ids unique, or name another column with id=.",
            )
        seen.add(one)
