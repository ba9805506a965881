"""A file of any table as columns, with errors that say where in it they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, json, parquet

from calib_ebm.errors import InputError
from calib_ebm.report.columns import Floats

PARQUET = (".parquet", ".pq")
ENDINGS = (*PARQUET, ".csv", ".tsv", ".jsonl")


def load(path: Path) -> pa.Table:
    """The file as columns.

    Raises:
        InputError: when it is not there, is of no known kind, is empty or broken.
    """
    ending = path.suffix.lower()
    if not path.is_file() or ending not in ENDINGS:
        what = "is of no kind that is known" if path.is_file() else "is not there"
        raise InputError(
            f"table={path} {what}.",
            f"a run folder, or a file: {', '.join(ENDINGS)}",
            f"Correct the path (it is taken from the folder {Path.cwd()}).",
        )
    tab = csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",")
    try:
        if ending in (".csv", ".tsv"):
            table = csv.read_csv(path, parse_options=tab)
        elif ending == ".jsonl":
            table = json.read_json(path)
        else:
            table = parquet.read_table(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({(str(error).splitlines() or [''])[0]}).",
            "a table with a header, in UTF-8",
            "Check the file.",
        ) from error
    if not table.num_rows:
        raise InputError(f"{path} has no rows.", "a row for each text", "Check the file.")
    if len(set(table.column_names)) != len(table.column_names):
        twice = next(n for n in table.column_names if table.column_names.count(n) > 1)
        raise InputError(
            f"{path} has the column {twice!r} twice.", "names of their own", "Rename one of them."
        )
    return table


@dataclass(frozen=True)
class Columns:
    """Columns of a table, with errors that say where they are."""

    path: Path
    table: pa.Table

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [str(name) for name in self.table.column_names]

    def is_ours(self) -> bool:
        """Whether the columns are those of predictions.parquet, and so is the kind of file."""
        if self.path.suffix.lower() not in PARQUET:
            return False
        return {"id", "split", "label", "logits"} <= {*self.names} and pa.types.is_list(
            self.table.schema.field("logits").type
        )

    def wrong(self, row: int, what: str, allowed: str) -> InputError:
        """What is wrong with a row, counted from 0 here and from 1 for the person."""
        return InputError(
            f"{self.path}: row {row + 1} {what}.", allowed, "Correct the row, or take it out."
        )

    def column(self, given: str | None, usual: str) -> list[Any] | None:
        """The column that was asked for, else the one of the usual name, else None."""
        if given is not None and given not in self.names:
            raise InputError(
                f"{self.path} has no column {given!r} ({usual}=).",
                f"one of its columns: {', '.join(self.names)}",
                f"Set {usual}= to the right one.",
            )
        name = given or usual
        return list(self.table.column(name).to_pylist()) if name in self.names else None

    def strings(self, given: str | None, usual: str) -> list[str] | None:
        """A column as words, none of them empty; None where there is no such column."""
        values = self.column(given, usual)
        if values is None:
            return None
        for row, value in enumerate(values):
            if value is None or str(value) == "":
                raise self.wrong(row, f"has no {usual}", f"a {usual} in every row")
        return [str(value) for value in values]

    def numbers(self, given: str | None, usual: str) -> Floats | None:
        """A column as numbers; None where there is no such column, or nothing in it."""
        values = self.column(given, usual)
        if values is None or all(value is None for value in values):
            return None
        return self.floats(values, given or usual)

    def floats(self, values: Sequence[Any], name: str) -> Floats:
        """Values as numbers, each of them there."""
        for row, value in enumerate(values):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or math.isnan(value):
                shown = "nothing" if value is None else repr(value)
                raise self.wrong(row, f"has {shown} in {name!r}", "a number in every row")
        return np.asarray(values, dtype=np.float64)

    def matrix(self, chosen: Sequence[str]) -> Floats:
        """Columns of numbers side by side, or one column of lists."""
        if len(chosen) == 1 and pa.types.is_nested(self.table.schema.field(chosen[0]).type):
            rows = self.table.column(chosen[0]).to_pylist()
            widths = {len(row) if row is not None else 0 for row in rows}
            if len(widths) != 1:
                raise InputError(
                    f"{self.path}: the lists in {chosen[0]!r} differ in length.",
                    "as many numbers in every row as there are classes",
                    "Correct the column.",
                )
            flat = [value for row in rows for value in row or ()]
            width = widths.pop()
            for place, value in enumerate(flat):
                self.floats([value], f"{chosen[0]} of row {place // max(width, 1) + 1}")
            return np.asarray(flat, dtype=np.float64).reshape(len(rows), width)
        return np.stack([self.floats(self.column(n, n) or [], n) for n in chosen], axis=1)
