"""predictions.parquet: id, split, label, logits and energy of every held-out text.

The one table from which every estimate, calibrator and figure is computed again without the model.
Calibrators are fitted on split "fit", split "test" is reported. A crossfitted table has split
"test" throughout and a column "fold": each fold is reported after a calibrator fitted on the other
folds. A reported set without labels has the label -1 throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calib_ebm.report.columns import (
    Floats,
    Numbers,
    broken,
    read_columns,
    to_floats,
    to_matrix,
    write_columns,
)

FILE = "predictions.parquet"
SPLITS = ("fit", "test")


@dataclass(frozen=True)
class Predictions:
    """N texts in a fixed order."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    """Of each text: "fit" (calibrators are fitted on it) or "test" (reported)."""
    labels_N: NDArray[np.int64]
    logits_NC: Floats
    """Before any calibration."""
    energy_N: Floats | None
    """None for a run without an energy."""
    folds_N: NDArray[np.int64] | None = None
    """The fold of each text where calibrators were crossfitted, else None."""

    def of(self, split: str) -> Predictions:
        """The texts of one half; crossfitted ones belong to both."""
        chosen = np.asarray([one == split for one in self.splits], dtype=bool)
        if self.folds_N is not None:
            chosen[:] = True
        return Predictions(
            ids=tuple(one for one, keep in zip(self.ids, chosen, strict=True) if keep),
            splits=(split,) * int(chosen.sum()),
            labels_N=self.labels_N[chosen],
            logits_NC=self.logits_NC[chosen],
            energy_N=None if self.energy_N is None else self.energy_N[chosen],
            folds_N=self.folds_N,
        )

    @property
    def labelled(self) -> bool:
        """Whether the reported texts have labels."""
        return bool((self.of("test").labels_N >= 0).any())

    def probs_NC(self, temperature: float = 1.0) -> torch.Tensor:
        """softmax(logits / temperature) in float64."""
        return torch.softmax(torch.from_numpy(self.logits_NC) / temperature, dim=1)

    def check(self, path: Path, classes: int | None = None) -> None:
        """Raise `InputError`, naming `path`, unless the table can be trusted.

        Lengths agree, ids are unique, no text is in both halves, the halves are named rightly,
        logits are finite and labels are classes (`classes` of them, where given), or -1 for all
        of a half.
        """
        rows, width = self.logits_NC.shape
        energies = rows if self.energy_N is None else len(self.energy_N)
        folds = rows if self.folds_N is None else len(self.folds_N)
        if {len(self.ids), len(self.splits), len(self.labels_N), energies, folds} != {rows}:
            raise broken(path, "its columns differ in length")
        if set(self.splits) - set(SPLITS):
            raise broken(path, f"a split is named other than {' or '.join(SPLITS)}")
        if self.folds_N is not None:
            self._check_folds(path)
        both = set(self.of("fit").ids) & set(self.of("test").ids)
        if both and self.folds_N is None:
            raise broken(path, f"the text {min(both)!r} is in the fit half and in the test half")
        if len(set(self.ids)) != rows:
            raise broken(path, "an id appears twice")
        if classes is not None and width != classes:
            raise broken(path, f"it has {width} logits a text where the task has {classes} classes")
        self._check_labels(path)
        if not np.isfinite(self.logits_NC).all():
            raise broken(path, "a logit is not finite")

    def _check_folds(self, path: Path) -> None:
        assert self.folds_N is not None
        if set(self.splits) != {"test"}:
            raise broken(path, "it has folds, and texts of a split other than test")
        if len({*self.folds_N.tolist()}) < 2 or (self.folds_N < 0).any():
            raise broken(path, "its folds are not two or more, numbered from 0")

    def _check_labels(self, path: Path) -> None:
        width = self.logits_NC.shape[1]
        for split in SPLITS:
            labels_N = self.of(split).labels_N
            unknown = labels_N == -1
            if unknown.any() and not unknown.all():
                raise broken(path, f"some texts of split {split} have a label and some have -1")
            if ((labels_N < -1) | (labels_N >= width)).any():
                raise broken(path, f"a label is outside 0 to {width - 1}")


def write_predictions(
    folder: Path,
    ids: Sequence[str],
    splits: Sequence[str],
    labels: Numbers,
    logits_NC: Numbers,
    energy_N: Numbers | None,
    folds: Sequence[int] | None = None,
) -> None:
    """Write predictions.parquet.

    Args:
        folder: the run folder.
        ids: one per text, unique over both halves.
        splits: "fit" or "test" of each text.
        labels: class index of each text.
        logits_NC: before any calibration.
        energy_N: None for a run without an energy.
        folds: of each text where calibrators are crossfitted.

    Raises:
        InputError: see `Predictions.check`.
    """
    table = Predictions(
        ids=tuple(ids),
        splits=tuple(splits),
        labels_N=to_floats(labels).astype(np.int64),
        logits_NC=to_floats(logits_NC),
        energy_N=None if energy_N is None else to_floats(energy_N),
        folds_N=None if folds is None else np.asarray(folds, dtype=np.int64),
    )
    write_table(folder, table)


def write_table(folder: Path, table: Predictions) -> None:
    """Write predictions.parquet.

    Raises:
        InputError: see `Predictions.check`.
    """
    table.check(folder / FILE)
    columns = {
        "id": table.ids,
        "split": table.splits,
        "label": table.labels_N,
        "logits": table.logits_NC,
        "energy": [None] * len(table.ids) if table.energy_N is None else table.energy_N,
    }
    if table.folds_N is not None:
        columns["fold"] = table.folds_N
    write_columns(folder / FILE, columns)


def read_predictions(folder: Path) -> Predictions:
    """Read and check predictions.parquet.

    Raises:
        InputError: see `Predictions.check`; or some texts have an energy and some have none.
    """
    return read_table(folder / FILE)


def read_table(path: Path) -> Predictions:
    """Read and check such a table, whatever it is called.

    Raises:
        InputError: see `read_predictions`.
    """
    columns = read_columns(path, ("id", "split", "label", "logits"), optional=("energy", "fold"))
    for name in ("energy", "fold"):
        known = [value is not None for value in columns[name]]
        if any(known) and not all(known):
            raise broken(
                path,
                f"some texts have {'an energy' if name == 'energy' else 'a fold'} "
                "and some have none",
            )
        if not any(known):
            columns[name] = None
    energies, folds = columns["energy"], columns["fold"]
    table = Predictions(
        ids=tuple(columns["id"]),
        splits=tuple(columns["split"]),
        labels_N=np.asarray(columns["label"], dtype=np.int64),
        logits_NC=to_matrix(columns["logits"], path),
        energy_N=None if energies is None else np.asarray(energies, dtype=np.float64),
        folds_N=None if folds is None else np.asarray(folds, dtype=np.int64),
    )
    table.check(path)
    return table
