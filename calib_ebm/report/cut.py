"""Which rows of a table calibrate and which are reported, where the table does not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from calib_ebm.dealing import fit_half, fold_of_each
from calib_ebm.errors import InputError
from calib_ebm.report.foreign import ForeignTable
from calib_ebm.report.predictions import Predictions

BY_ID = "the table does not say which rows calibrate, so they were chosen by a hash of the ids"


def cut_by_ids(
    found: ForeignTable, folds: int | None, path: Path
) -> tuple[Predictions, tuple[str, ...]]:
    """The table in halves or folds by the hashes of its ids, and what a reader should know of it.

    Args:
        found: one that is cut already stays as it is.
        folds: how many; None: two halves, of which one is reported.
        path: of the table, for errors.

    Raises:
        InputError: folds were asked for and the table is cut already, or has fewer rows.
    """
    table = found.table
    if found.is_cut:
        if folds is not None:
            raise InputError(
                f"folds={folds}, and {path} says itself what is fitted on and what is reported.",
                "folds for a table without a column of splits",
                "Leave folds out.",
            )
        return table, ()
    ids = [(one, None) for one in table.ids]
    if folds is not None:
        dealt = fold_of_each(ids, folds, "folds")
        note = f"{BY_ID}: {folds} folds, each reported after a calibrator fitted on the others."
        return replace(table, folds_N=np.asarray(dealt, dtype=np.int64)), (note,)
    fit = fit_half(ids)
    splits = tuple("fit" if row in fit else "test" for row in range(len(ids)))
    return replace(table, splits=splits), (
        f"{BY_ID}: {len(fit)} of {len(ids)}. Equal texts may be on both sides: give a column of "
        "splits (split=) where there are such.",
    )
