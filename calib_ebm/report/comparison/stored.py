"""Stored tables of predictions as members of a comparison, named by where they lie.

    results/sst2/hidden-seed1.parquet     task sst2, method hidden, seed 1

All figures are computed from the table. One that does not say which of its rows calibrate is cut
by a hash of the ids, as `evaluate table=` cuts it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.report.cut import cut_by_ids
from calib_ebm.report.files import RunFolder
from calib_ebm.report.foreign import ForeignTable, TableColumns, read_foreign
from calib_ebm.report.predictions import Predictions
from calib_ebm.report.records import RunRecord

_SEED = re.compile(r"(?P<method>.+)[-_]seed(?P<seed>[0-9]+)", re.IGNORECASE | re.DOTALL)
NO_SEED = "its name has no -seed<number>, so its seed counts as 0."
NO_IDS = (
    "it has no column of ids: its rows are numbered, and row by row taken for the texts of other "
    "tables without ids."
)
PUT_RIGHT = "Correct the table, or leave it out."


@dataclass(frozen=True)
class TableSettings:
    """How tables are to be read.

    Attributes:
        columns: which hold what.
        labels: names of the classes in order; empty: taken from the columns.
        folds: report all rows of a table without splits, in so many folds; None: half of them.
    """

    columns: TableColumns = field(default_factory=TableColumns)
    labels: tuple[str, ...] = ()
    folds: int | None = None

    def given(self) -> list[str]:
        """Names of the settings that were given."""
        each = {**vars(self.columns), "labels": self.labels, "folds": self.folds}
        return [name for name, value in each.items() if value not in (None, ())]


class Name(NamedTuple):
    """What a table's place says of it."""

    task: str
    method: str
    seed: int | None


def name_of_table(path: Path) -> Name:
    """Task, method and seed of a table, the last None where its name has none.

    >>> name_of_table(Path("/results/sst2/hidden-seed1.parquet"))
    Name(task='sst2', method='hidden', seed=1)
    >>> name_of_table(Path("/results/sst2/hidden.csv"))
    Name(task='sst2', method='hidden', seed=None)
    """
    # A path within this folder does not say what the folder is called.
    task = path.resolve().parent.name if path.parent == Path() else path.absolute().parent.name
    found = _SEED.fullmatch(path.stem)
    if found is None:
        return Name(task, path.stem, None)
    return Name(task, found["method"], int(found["seed"]))


def read_stored(path: Path, settings: TableSettings) -> RunFolder:
    """A table in the shape of a run that has left nothing but its predictions.

    Raises:
        InputError: it cannot be read, has no labels, or leaves nothing to calibrate on or report.
    """
    found = read_foreign(path, settings.columns, settings.labels)
    if (found.table.labels_N < 0).any():
        raise InputError(
            f"{path} has rows without labels, so there is no error to be measured.",
            "a label in every row",
            "Name the column with label=, or leave the table out.",
        )
    if len(found.table.ids) < 2:
        raise InputError(f"{path} has one row only.", "hundreds of rows", PUT_RIGHT)
    table, notes = cut_by_ids(found, settings.folds, path)
    _require_both_halves(table, path)
    name = name_of_table(path)
    record = RunRecord(
        task=name.task,
        labels=found.labels,
        metrics=("acc",),
        energy="none" if table.energy_N is None else "stored",
        noise=None,
        seed=name.seed or 0,
        temperature=1.0,
        status="complete",
        notes=(*notes, *_notes(found, name)),
    )
    return RunFolder(
        path=path,
        config={},
        run=record,
        metrics={},
        predictions=table,
        history={},
        energies=None,
        noise_samples=(),
        truth=None,
        method=name.method,
    )


def _notes(found: ForeignTable, name: Name) -> Sequence[str]:
    return (
        *found.notes,
        *(() if found.has_ids else (NO_IDS,)),
        *(() if name.seed is not None else (NO_SEED,)),
    )


def _require_both_halves(table: Predictions, path: Path) -> None:
    for split, use in (("fit", "calibrate on"), ("test", "report")):
        if not table.of(split).ids:
            raise InputError(
                f"{path} has no row of split {split}: there is nothing to {use}.",
                "rows of split fit, which calibrate, and of split test, which are reported",
                "Take the column of splits out, and half of the rows calibrate.",
            )
