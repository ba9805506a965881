"""predictions.parquet: id, half, label, logits and energy of every held-out text.

The one table from which every estimate, calibrator and figure is computed again without the model.
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

    def of(self, split: str) -> Predictions:
        """The texts of one half."""
        chosen = np.asarray([one == split for one in self.splits], dtype=bool)
        return Predictions(
            ids=tuple(one for one, keep in zip(self.ids, chosen, strict=True) if keep),
            splits=(split,) * int(chosen.sum()),
            labels_N=self.labels_N[chosen],
            logits_NC=self.logits_NC[chosen],
            energy_N=None if self.energy_N is None else self.energy_N[chosen],
        )

    def probs_NC(self, temperature: float = 1.0) -> torch.Tensor:
        """softmax(logits / temperature) in float64."""
        return torch.softmax(torch.from_numpy(self.logits_NC) / temperature, dim=1)

    def check(self, path: Path, classes: int | None = None) -> None:
        """Raise `InputError`, naming `path`, unless the table can be trusted.

        Lengths agree, ids are unique, no text is in both halves, the halves are named rightly,
        logits are finite and labels are classes (`classes` of them, where given).
        """
        rows, width = self.logits_NC.shape
        energies = rows if self.energy_N is None else len(self.energy_N)
        if {len(self.ids), len(self.splits), len(self.labels_N), energies} != {rows}:
            raise broken(path, "its columns differ in length")
        if set(self.splits) - set(SPLITS):
            raise broken(path, f"a split is named other than {' or '.join(SPLITS)}")
        both = set(self.of("fit").ids) & set(self.of("test").ids)
        if both:
            raise broken(path, f"the text {min(both)!r} is in the fit half and in the test half")
        if len(set(self.ids)) != rows:
            raise broken(path, "an id appears twice")
        if classes is not None and width != classes:
            raise broken(path, f"it has {width} logits a text where the task has {classes} classes")
        if ((self.labels_N < 0) | (self.labels_N >= width)).any():
            raise broken(path, f"a label is outside 0 to {width - 1}")
        if not np.isfinite(self.logits_NC).all():
            raise broken(path, "a logit is not finite")


def write_predictions(
    folder: Path,
    ids: Sequence[str],
    splits: Sequence[str],
    labels: Numbers,
    logits_NC: Numbers,
    energy_N: Numbers | None,
) -> None:
    """Write predictions.parquet.

    Args:
        folder: the run folder.
        ids: one per text, unique over both halves.
        splits: "fit" or "test" of each text.
        labels: class index of each text.
        logits_NC: before any calibration.
        energy_N: None for a run without an energy.

    Raises:
        InputError: see `Predictions.check`.
    """
    table = Predictions(
        ids=tuple(ids),
        splits=tuple(splits),
        labels_N=to_floats(labels).astype(np.int64),
        logits_NC=to_floats(logits_NC),
        energy_N=None if energy_N is None else to_floats(energy_N),
    )
    table.check(folder / FILE)
    write_columns(
        folder / FILE,
        {
            "id": table.ids,
            "split": table.splits,
            "label": table.labels_N,
            "logits": table.logits_NC,
            "energy": [None] * len(table.ids) if table.energy_N is None else table.energy_N,
        },
    )


def read_predictions(folder: Path) -> Predictions:
    """Read and check predictions.parquet.

    Raises:
        InputError: see `Predictions.check`; or some texts have an energy and some have none.
    """
    path = folder / FILE
    columns = read_columns(path, ("id", "split", "label", "logits"), optional=("energy",))
    energies = columns["energy"]
    known = [energy is not None for energy in energies]
    if any(known) and not all(known):
        raise broken(path, "some texts have an energy and some have none")
    table = Predictions(
        ids=tuple(columns["id"]),
        splits=tuple(columns["split"]),
        labels_N=np.asarray(columns["label"], dtype=np.int64),
        logits_NC=to_matrix(columns["logits"], path),
        energy_N=np.asarray(energies, dtype=np.float64) if any(known) else None,
    )
    table.check(path)
    return table
