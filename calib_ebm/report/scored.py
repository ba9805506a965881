"""Tables of scored texts of any size: their columns, and the files that hold them.

A row for each text, in the order of the input:

    the columns that were kept, as they were
    predicted      the class of the largest probability
    confidence     that probability
    prob_<class>   calibrated probabilities, in the order of the classes
    energy         in nats, low where the text looks like the training data; where one was trained

A text that could not be scored, for it is empty, has its kept columns and nothing else. Written
piece by piece, so that no more than a piece is ever held.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from calib_ebm.errors import InputError
from calib_ebm.report.columns import Floats

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
PROB = "prob_"
ARROW = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "json": pa.string(),
}
Write = Callable[[pa.Table], None]


def ending_of(path: Path) -> str:
    """The ending that says how a table is written.

    Raises:
        InputError: for one that is not known.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(
            f"output={path} has {f'the ending {ending}' if ending else 'no ending'}.",
            ", ".join(ENDINGS),
            f"Name it e.g. output={path.with_suffix('.parquet')}.",
        )
    return ending


@dataclass(frozen=True)
class ScoredColumns:
    """The columns of one table.

    Attributes:
        kinds: columns that are kept, each with a key of `ARROW`.
        labels: names of the classes.
        has_energy: whether there are energies.
        arrow_types: of kept columns that have a type of their own, by which the kind is replaced.
    """

    kinds: Mapping[str, str]
    labels: tuple[str, ...]
    has_energy: bool
    arrow_types: Mapping[str, pa.DataType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `InputError` for a kept column that has the name of one of ours."""
        ours = self.names_of_scores()
        taken = [name for name in self.kinds if name in ours]
        if taken:
            raise InputError(
                f"keep has the column {taken[0]!r}, and scores have one of that name.",
                f"columns that are not called {', '.join(ours)}",
                "Leave it out of keep=, or rename it in the input.",
            )

    def names_of_scores(self) -> list[str]:
        """The columns that are not kept but made."""
        energy = ["energy"] * self.has_energy
        return ["predicted", "confidence", *(PROB + label for label in self.labels), *energy]

    @property
    def as_json(self) -> frozenset[str]:
        """Kept columns of mixed or nested values, whose cells are written as JSON."""
        return frozenset(
            name
            for name, kind in self.kinds.items()
            if kind == "json" and name not in self.arrow_types
        )

    def schema(self) -> pa.Schema:
        """Names and types in order."""
        kept = [
            (name, self.arrow_types.get(name, ARROW[kind])) for name, kind in self.kinds.items()
        ]
        predicted, *numbers = self.names_of_scores()
        return pa.schema(
            [*kept, (predicted, pa.string()), *((name, pa.float64()) for name in numbers)]
        )

    def table(
        self,
        kept: Sequence[tuple[Any, ...]],
        places: Sequence[int],
        probs_BC: Floats,
        energy_B: Floats | None,
    ) -> pa.Table:
        """Rows of the table.

        Args:
            kept: the kept cells of each row.
            places: which of the rows have scores, in ascending order.
            probs_BC: of these.
            energy_B: of these; None without an energy.
        """
        schema = self.schema()
        columns = []
        for at, name in enumerate(self.kinds):
            cells = [row[at] for row in kept]
            if name in self.as_json:
                cells = [None if cell is None else _json(cell) for cell in cells]
            columns.append(pa.array(cells, type=schema.field(name).type))
        best_B = probs_BC.argmax(axis=1)
        numbers = [probs_BC.max(axis=1, initial=0.0), *probs_BC.T]
        numbers += [] if energy_B is None else [energy_B]
        # Where there is no score the index is null, and a null taken is a null.
        take_N = np.full(len(kept), -1)
        take_N[np.asarray(places, dtype=int)] = np.arange(len(places))
        index = pa.array(take_N, mask=take_N < 0)
        predicted = pa.array([self.labels[best] for best in best_B], type=pa.string())
        scores = [predicted, *(pa.array(values, type=pa.float64()) for values in numbers)]
        return pa.table([*columns, *(score.take(index) for score in scores)], schema=schema)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# ----------------------------------------------------------------------------------------- files


@contextmanager
def table_writer(
    path: Path, ending: str, schema: pa.Schema, as_json: frozenset[str]
) -> Iterator[Write]:
    """Give a function that appends rows to a new file.

    Args:
        path: of the file.
        ending: how it is written: one of `ENDINGS`.
        schema: of all that will be written.
        as_json: columns that hold JSON, which a jsonl file takes as it is.
    """
    if ending == ".parquet":
        with parquet.ParquetWriter(path, schema) as writer:
            yield writer.write_table
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if ending == ".jsonl":
            yield lambda table: file.writelines(_json_lines(table, as_json))
            return
        rows = csv.writer(file, **_dialect(ending))
        rows.writerow(schema.names)
        yield lambda table: rows.writerows(
            zip(*(column.to_pylist() for column in table.columns), strict=True)
        )


def _dialect(ending: str) -> dict[str, Any]:
    if ending == ".tsv":
        # Quotes are letters; that no cell holds a tab or a line end is known before.
        return {
            "delimiter": "\t",
            "quoting": csv.QUOTE_NONE,
            "quotechar": None,
            "lineterminator": "\n",
        }
    return {"lineterminator": "\n"}


def _json_lines(table: pa.Table, as_json: frozenset[str]) -> Iterator[str]:
    for row in table.to_pylist():
        for name in as_json:
            row[name] = None if row[name] is None else json.loads(row[name])
        yield _json(row) + "\n"
