"""The kinds of files that one's own data may come in, each read row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.text.rows import Reading, ragged, tsv_lines, utf8_lines

LONGEST_CELL = 10_000_000
"""Characters of a csv cell; the csv module's own bound is shorter than some documents."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; None where a column is not asked for."""

    text: str
    text_pair: str | None
    label: str | None
    id: str | None
    label_may_be_absent: bool = False
    """A file without the column of labels is read as one without labels."""
    keep: tuple[str, ...] = ()
    """Further columns, whose cells are handed on as `keep:<column>`."""

    def wanted(self) -> dict[str, str]:
        """Setting -> column, for those that are set."""
        named = {name: column for name, column in vars(self).items() if isinstance(column, str)}
        return named | {f"keep:{column}": column for column in self.keep}


class Cells(NamedTuple):
    """One row of a file: its number and its cells by the setting that asked for them."""

    number: int
    cells: dict[str, Any]


Reader = Callable[[Path, Columns, Reading, str], Iterator[Cells]]
"""From path, columns, the reading and the separator (csv only) to cells."""


def _positions(header: list[str], columns: Columns, where: str) -> dict[str, int]:
    """Setting -> position of its column.

    Raises:
        InputError: for a column that is not there, or there twice.
    """
    if header in ([], [""]):
        raise InputError(f"{where} is empty.", "a header and labelled texts", "Check the file.")
    wanted = columns.wanted()
    if columns.label_may_be_absent and columns.label not in header:
        wanted.pop("label", None)
    for name, column in wanted.items():
        if header.count(column) != 1:
            setting = name.partition(":")[0]
            found = "twice" if column in header else "not"
            other = next((s for s in ",;\t|" if len(header) == 1 and s in header[0]), None)
            raise InputError(
                f"{where}: the column {column!r} (task.{setting}) is {found} there.",
                f"one of the file's columns: {', '.join(header)}",
                f"Set task.{setting} to the name of the right column."
                if other is None
                else f"The separator seems to be {other!r}: see task.delimiter of task=csv.",
            )
    return {setting: header.index(column) for setting, column in wanted.items()}


def _next_row(rows: Iterator[list[str]]) -> list[str] | None:
    """The next row; the bound on cells, which the csv module has for all readers, is put back."""
    bound = csv.field_size_limit(LONGEST_CELL)
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(bound)


def read_csv(path: Path, columns: Columns, reading: Reading, delimiter: str) -> Iterator[Cells]:
    """Rows of a csv file with a header; cells may be quoted and may then contain line ends.

    Raises:
        InputError: for a missing column, a row of another length than the header, broken quoting.
    """
    if delimiter.lower() in ("tab", "\\t"):
        delimiter = "\t"
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(
            f"task.delimiter is {delimiter!r}.",
            "one character, or the word tab",
            "Set e.g. task.delimiter=';' (or leave it unset for a comma).",
        )
    rows = csv.reader(utf8_lines(path), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = _next_row(rows) or []
        positions = _positions(header, columns, str(path))
        start = rows.line_num + 1
        while (row := _next_row(rows)) is not None:
            if row and len(row) != len(header):
                help_ = "Put quotes around cells that contain the separator, or set task.delimiter."
                raise ragged(reading, start, len(row), len(header), help_)
            if row:
                yield Cells(start, {name: row[column] for name, column in positions.items()})
            start = rows.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{reading.at(start)}: the row that starts here cannot be read ({error}).",
            "csv: cells with line ends stand in double quotes, and quotes within these are doubled",
            "Correct the quoting; a file with tabs and no quoting is read by task=tsv.",
        ) from error


def read_tsv(path: Path, columns: Columns, reading: Reading, _: str) -> Iterator[Cells]:
    """Rows of a tab-separated file with a header; quotes are letters, a cell cannot contain a tab.

    Raises:
        InputError: for a missing column, or a row of another length than the header.
    """
    lines = tsv_lines(path)
    _number, header = next(lines, (1, []))
    positions = _positions(header, columns, str(path))
    for number, row in lines:
        if len(row) != len(header):
            help_ = "If cells are quoted, use task=csv task.delimiter=tab."
            raise ragged(reading, number, len(row), len(header), help_)
        yield Cells(number, {name: row[column] for name, column in positions.items()})


def read_jsonl(path: Path, columns: Columns, reading: Reading, _: str) -> Iterator[Cells]:
    """One JSON object a line; blank lines are skipped.

    Raises:
        InputError: for a line that is no JSON object, or one without the columns.
    """
    for number, line in enumerate(utf8_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            # JSON can write half of a surrogate pair, which no encoding and no tokenizer takes.
            json.dumps(record, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{reading.at(number)} is not JSON: {error}.",
                "one JSON object on each line",
                "Correct the line; a file that is one JSON array must be written as lines.",
            ) from error
        if not isinstance(record, dict):
            raise InputError(
                f"{reading.at(number)} is a JSON {type(record).__name__}.",
                'one JSON object on each line, e.g. {"text": "fine", "label": 1}',
                "Write every example as an object on a line of its own.",
            )
        names = list(record)
        positions = _positions(names, columns, reading.at(number))
        yield Cells(number, {setting: record[names[at]] for setting, at in positions.items()})


def read_parquet(path: Path, columns: Columns, _: Reading, __: str) -> Iterator[Cells]:
    """Rows of a Parquet file, a batch at a time.

    Raises:
        InputError: for a file that is not Parquet, or a missing column.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet: {error}.", "a Parquet file", "Check the file."
        ) from error
    with file:
        names = list(file.schema_arrow.names)
        positions = _positions(names, columns, str(path))
        wanted = {setting: names[at] for setting, at in positions.items()}
        number = 0
        for batch in file.iter_batches(batch_size=1000, columns=sorted(set(wanted.values()))):
            table = batch.to_pydict()
            for row in range(batch.num_rows):
                number += 1
                yield Cells(number, {setting: table[c][row] for setting, c in wanted.items()})


class Kind(NamedTuple):
    """A kind of file: how it is read, its endings, and what its rows are called."""

    read: Reader
    endings: tuple[str, ...]
    unit: str


KINDS = {
    "csv": Kind(read_csv, (".csv", ".txt"), "line"),
    "tsv": Kind(read_tsv, (".tsv", ".tab", ".txt"), "line"),
    "jsonl": Kind(read_jsonl, (".jsonl", ".ndjson", ".json"), "line"),
    "parquet": Kind(read_parquet, (".parquet", ".pq"), "row"),
}
