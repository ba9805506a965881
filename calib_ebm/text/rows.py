"""What every reader shares: lines of UTF-8, rows of tab-separated files, dropping with a count.

A text and its label travel in one `Row` until the empty texts are gone, so that dropping a text
cannot shift the labels of those after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example

EMPTY = "have an empty text and were dropped with their labels"
RAGGED = "have not the columns of the header (broken in the original download) and were dropped"


class Row(NamedTuple):
    """One labelled text as a reader found it, before anything is dropped."""

    number: int
    """Line of the file (row of a Parquet file or of a Hub split), from 1."""
    id: str
    text: str
    text_pair: str | None
    label: Any


@dataclass
class Reading:
    """One split being read: where from, and what was left out on the way."""

    split: str
    where: str
    unit: str = "line"
    left_out: dict[str, list[int]] = field(default_factory=dict)

    def at(self, number: int) -> str:
        """The place as a person looks it up.

        >>> Reading("dev", "mine.csv").at(17)
        'mine.csv, line 17'
        """
        return f"{self.where}, {self.unit} {number}"

    def leave_out(self, why: str, number: int) -> None:
        """Count one dropped row."""
        self.left_out.setdefault(why, []).append(number)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each reason of dropping.

        >>> reading = Reading("dev", "mine.csv")
        >>> reading.leave_out("are empty and were dropped", 4)
        >>> reading.notes()
        ('dev: 1 row(s) of mine.csv are empty and were dropped (line 4).',)
        """
        return tuple(
            f"{self.split}: {len(numbers)} row(s) of {self.where} {why} "
            f"({self.unit} {', '.join(map(str, numbers[:5]))}{', ...' * (len(numbers) > 5)})."
            for why, numbers in self.left_out.items()
        )


def kept(rows: Iterable[Row], reading: Reading) -> Iterator[Row]:
    """Strip the ends of the texts; leave out rows whose text, or second text, is then empty.

    Ends are stripped because GLUE's files carry stray blanks (each SST-2 text ends in one), by
    which an energy could tell data from noise without reading either.
    """
    for row in rows:
        text = row.text.strip()
        text_pair = None if row.text_pair is None else row.text_pair.strip()
        if text and text_pair != "":
            yield row._replace(text=text, text_pair=text_pair)
        else:
            reading.leave_out(EMPTY, row.number)


def as_text(value: Any, column: str, reading: Reading, number: int) -> str:
    """A cell as text; an absent one is an empty text.

    Raises:
        InputError: for what is no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise InputError(
            f"{reading.at(number)}: column {column!r} holds {value!r} ({type(value).__name__}).",
            "text",
            "Set task.text (and task.text_pair) to the column with the texts.",
        )
    return value


def to_examples(
    rows: Iterable[Row], label_index: Callable[[Row], int], reading: Reading
) -> tuple[Example, ...]:
    """The rows as examples.

    Raises:
        InputError: for an id that occurs twice, and whatever `label_index` finds wrong.
    """
    seen: dict[str, int] = {}
    examples = []
    for row in rows:
        if row.id in seen:
            raise InputError(
                f"{reading.at(row.number)}: the id {row.id!r} is that of "
                f"{reading.unit} {seen[row.id]} already.",
                "an id of its own for every example",
                "Make the ids unique, or leave task.id unset so that rows are numbered.",
            )
        seen[row.id] = row.number
        examples.append(Example(row.id, row.text, row.text_pair, label_index(row)))
    return tuple(examples)


def utf8_lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends, without a byte-order mark.

    Lines end at a newline only: `str.splitlines` also cuts at marks that occur within texts.

    Raises:
        InputError: for a byte that is not UTF-8, with its line.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte {error.start + 1} of the line "
                    f"(0x{error.object[error.start]:02x}) is not UTF-8.",
                    "files in UTF-8, with or without a byte-order mark",
                    "Convert it, e.g. `iconv -f LATIN1 -t UTF-8 old > new`, or save it as UTF-8.",
                ) from error


def tsv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a tab-separated file: quotes are letters, blank lines skipped."""
    for number, line in enumerate(utf8_lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t")
        if cells != [""]:
            yield number, cells


def ragged(reading: Reading, number: int, found: int, expected: int, to_do: str) -> InputError:
    """The error for a row whose cells cannot be told apart."""
    return InputError(f"{reading.at(number)} has {found} columns.", f"{expected} columns", to_do)
