"""Texts to be scored, in a file of any size: read row by row, as often as is needed.

Nothing is held but the rows at hand. So the file is read once to find out what it is (`survey`:
whether every row can be read, how many there are, what the columns to keep hold), before anything
is scored, and again to score it. What was scored before is known again by a digest of the rows
themselves, not by the file's size or date.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from calib_ebm.errors import InputError
from calib_ebm.text.formats import KINDS, LONGEST_CELL, Columns
from calib_ebm.text.rows import Reading, as_text, utf8_lines

LARGEST_INT = 2**63
NAMES_OF_KINDS = {str: "string", bool: "bool", int: "int", float: "float", type(None): "null"}
READERS_SAY = (
    (" of task=csv", ""),
    ("use task=csv task.delimiter=tab", "give the file the ending .csv and set delimiter=tab"),
    ("is read by task=tsv", "is read with the ending .tsv"),
    ("labelled texts", "texts"),
    ("task.", ""),
)
"""The readers' errors name the settings of `task`; here they have no group."""


class InputRow(NamedTuple):
    """One text or pair to be scored, and the cells that go with it."""

    number: int
    """Line of the file, or row of a Parquet file, from 1."""
    text: str
    text_pair: str | None
    kept: tuple[Any, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to score."""
        return not self.text or self.text_pair == ""


@dataclass(frozen=True)
class Input:
    """A file of texts.

    Attributes:
        path: csv, tsv, jsonl or Parquet, as the ending says.
        delimiter: of a csv file.
    """

    path: Path
    delimiter: str = ","

    def __post_init__(self) -> None:
        """Raise `InputError` for a file that is not there, or of no known kind."""
        known = [ending for kind in KINDS.values() for ending in kind.endings]
        if not self.path.is_file() or self.path.suffix.lower() not in known:
            what = "is of no kind that is known" if self.path.is_file() else "is not there"
            what = "is a folder" if self.path.is_dir() else what
            raise InputError(
                f"input={self.path} {what}.",
                f"a file of texts, its kind said by its ending: {', '.join(dict.fromkeys(known))}",
                f"Correct the path (it is taken from the folder {Path.cwd()}).",
            )

    @property
    def kind(self) -> str:
        """A key of `KINDS`."""
        ending = self.path.suffix.lower()
        return next(name for name, kind in KINDS.items() if ending in kind.endings)

    @property
    def unit(self) -> str:
        """What its rows are called."""
        return KINDS[self.kind].unit

    def names(self) -> list[str]:
        """Names of the columns; of a jsonl file those of its first row.

        Raises:
            InputError: when there are none, or they cannot be read.
        """
        with _settings_without_group():
            return _names(self)

    def arrow_types(self) -> dict[str, pa.DataType]:
        """Columns of a Parquet file and their types; nothing for other kinds."""
        if self.kind != "parquet":
            return {}
        schema = parquet.read_schema(self.path)
        return dict(zip(schema.names, schema.types, strict=True))

    def rows(
        self, text: str, text_pair: str | None = None, keep: Sequence[str] = ()
    ) -> Iterator[InputRow]:
        """All rows, those with an empty text too.

        Raises:
            InputError: for a column that is not there and a row that cannot be read, with its line.
        """
        columns = Columns(text, text_pair, None, None, keep=tuple(keep))
        cells_of_keep = [f"keep:{column}" for column in keep]
        reading = Reading("input", str(self.path), self.unit)
        with _settings_without_group():
            for number, cells in KINDS[self.kind].read(self.path, columns, reading, self.delimiter):
                pair = None
                if text_pair is not None:
                    pair = as_text(cells["text_pair"], text_pair, reading, number).strip()
                yield InputRow(
                    number,
                    as_text(cells["text"], text, reading, number).strip(),
                    pair,
                    tuple([cells[name] for name in cells_of_keep]),
                )


def _names(source: Input) -> list[str]:
    if source.kind == "parquet":
        try:
            return [str(name) for name in parquet.read_schema(source.path).names]
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(source, f"as Parquet: {error}", "a Parquet file") from error
    lines = utf8_lines(source.path)
    try:
        if source.kind == "jsonl":
            first = json.loads(next((line for line in lines if line.strip()), "{}"))
            names = list(first) if isinstance(first, dict) else []
        elif source.kind == "tsv":
            names = next(lines, "").rstrip("\r\n").split("\t")
        else:
            tab = source.delimiter.lower() in ("tab", "\\t")
            bound = csv.field_size_limit(LONGEST_CELL)
            names = next(csv.reader(lines, delimiter="\t" if tab else source.delimiter), [])
            csv.field_size_limit(bound)
    except (ValueError, TypeError, RecursionError, csv.Error):
        # What is wrong with it is said, with its line, by the reader of the rows.
        return []
    return [name for name in names if name]


def _unreadable(source: Input, why: str, allowed: str) -> InputError:
    return InputError(f"{source.path} cannot be read {why}.", allowed, "Check the file.")


@contextmanager
def _settings_without_group() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        parts = [error.given, error.allowed, error.to_do]
        for said, ours in READERS_SAY:
            parts = [part.replace(said, ours) for part in parts]
        raise InputError(*parts) from error


# --------------------------------------------------------------------------- what is in the file


def windows(rows: Iterable[InputRow], size: int) -> Iterator[list[InputRow]]:
    """Runs of `size` rows, the last one shorter."""
    rows = iter(rows)
    while window := list(islice(rows, size)):
        yield window


def digest_of(window: Sequence[InputRow]) -> str:
    """Digest of what the rows hold, wherever they stand.

    >>> one, other = (InputRow(n, "a film", None, ("7",)) for n in (2, 9))
    >>> digest_of([one]) == digest_of([other]), digest_of([one]) == digest_of([one, other])
    (True, False)
    """
    plain = repr([(row.text, row.text_pair, row.kept) for row in window])
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass
class Survey:
    """What one reading of all rows found.

    Attributes:
        rows: how many there are.
        empty: how many of them have an empty text.
        first_empty: the first of these, by line.
        digest: of all rows in windows of the size that was asked for.
        kinds: what the cells of each column to keep are: string, bool, int, float, null; json where
            they are none of these, or of several kinds.
    """

    kinds: dict[str, str]
    rows: int = 0
    empty: int = 0
    first_empty: list[int] = field(default_factory=list)
    digest: str = ""


def survey(
    rows: Iterable[InputRow],
    keep: Sequence[str],
    size: int,
    check: Callable[[InputRow], None] = lambda _: None,
) -> Survey:
    """Read all rows once.

    Args:
        rows: of the file.
        keep: columns that `kept` holds.
        size: of a window.
        check: raises for a row that cannot be used.

    Raises:
        InputError: for whatever is wrong with any of the rows.
    """
    seen: list[set[str]] = [set() for _ in keep]
    found, whole = Survey({}), hashlib.blake2b(digest_size=16)
    for window in windows(rows, size):
        for row in window:
            check(row)
            if row.is_empty:
                found.empty += 1
                if len(found.first_empty) < 5:
                    found.first_empty.append(row.number)
            for kinds, value in zip(seen, row.kept, strict=True):
                kinds.add(_kind_of(value))
        found.rows += len(window)
        whole.update(digest_of(window).encode())
    found.digest = whole.hexdigest()
    found.kinds = {column: _common(kinds) for column, kinds in zip(keep, seen, strict=True)}
    return found


def _kind_of(value: Any) -> str:
    kind = NAMES_OF_KINDS.get(type(value), "json")
    return "json" if kind == "int" and not -LARGEST_INT <= value < LARGEST_INT else kind


def _common(kinds: set[str]) -> str:
    """One kind for a column: numbers of two kinds are not turned into one another.

    >>> _common({"int", "null"}), _common({"int", "float"}), _common(set())
    ('int', 'json', 'string')
    """
    kinds = kinds - {"null"}
    return (kinds or {"string"}).pop() if len(kinds) < 2 else "json"
