"""stress.csv and stress.json: what becomes of a run's figures on other sets than its clean one.

`evaluate` writes both into the folder that holds the evaluations. One row is one figure of one set:

    set         clean, the name of a file, or a corruption with its rate (typos-0.1)
    kind        clean | data (other texts) | tokens | typos | truncate | ood (texts of another task)
    rate        of the corruption; empty for the other kinds
    folder      the evaluation's own folder, beside this file
    scoring     deterministic | mc_dropout-N (N passes) | ensemble-N (N runs), or both with a plus
    calibrator  by name; it is fitted on the clean fit half, whatever the set
    n           texts that were reported
    metric      as in metrics.json: test/cal/ece, test_calibrated/nll, test/confidence, energy/data;
                and of kind ood alone ood/auroc/SCORE and ood/fpr95/SCORE, in against out of
                distribution by energy, max_prob, entropy and margin
    value, low, high                                  the figure and its 95% interval
    difference, difference_low, difference_high       the figure less that of the clean set
    paired      true: the same texts, so the interval is the paired one; false: other texts

A cell is empty, and null in the JSON, where there is no such number: differences of the clean set,
figures that need labels on a set without. A later evaluation replaces the rows of its own folders
and leaves the others.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from calib_ebm.durable import write_json, write_text
from calib_ebm.lock import only_one
from calib_ebm.report.columns import broken

CSV = "stress.csv"
JSON = "stress.json"
CLEAN = "clean"


@dataclass(frozen=True)
class StressRow:
    """One figure of one set; the fields are the columns."""

    set: str
    kind: str
    rate: float | None
    folder: str
    scoring: str
    calibrator: str
    n: int
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    paired: bool | None = None


COLUMNS = tuple(field.name for field in fields(StressRow))
NUMBERS = {"rate", "value", "low", "high", "difference", "difference_low", "difference_high"}


def write_stress(folder: Path, rows: Sequence[StressRow]) -> tuple[StressRow, ...]:
    """Write both files, with the rows of other evaluations that are there already.

    Evaluations of one run may be at work at the same time: none loses the rows of another.

    Returns:
        all rows that are now there.
    """
    with only_one(folder, lambda _: None, inside=True):
        return _write_together(folder, rows)


def _write_together(folder: Path, rows: Sequence[StressRow]) -> tuple[StressRow, ...]:
    new = {row.folder for row in rows}
    there = read_stress(folder) if (folder / CSV).is_file() else ()
    kept = tuple(row for row in there if row.folder not in new and (folder / row.folder).is_dir())
    together = (*kept, *rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in together:
        writer.writerow([_written(value) for value in asdict(row).values()])
    write_text(folder / CSV, text.getvalue())
    write_json(folder / JSON, [asdict(row) for row in together])
    return together


def read_stress(folder: Path) -> tuple[StressRow, ...]:
    """Read stress.csv.

    Raises:
        InputError: it is not such a file.
    """
    path = folder / CSV
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError("its columns are others")
            return tuple(_read(row) for row in reader)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise broken(path, f"it is no table of a stress evaluation ({error!r})") from error


def _read(cells: dict[str, str]) -> StressRow:
    plain: dict[str, Any] = {}
    for name in COLUMNS:
        cell = cells[name]
        if name in NUMBERS:
            plain[name] = float(cell) if cell else None
        elif name == "n":
            plain[name] = int(cell)
        elif name == "paired":
            plain[name] = json.loads(cell) if cell else None
        else:
            plain[name] = cell
    if plain["value"] is None:
        plain["value"] = math.nan
    return StressRow(**plain)


def _written(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
