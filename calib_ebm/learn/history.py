"""history.csv: everything logged, a row a step, whatever other logger is used."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

FIRST_COLUMNS = ("step", "loss/total", "loss/label", "loss/ce", "loss/nce")


class HistoryLogger(Logger):
    """Collects logged values by step and writes them as one CSV file, atomically.

    A resumed run takes up the rows of the steps that its checkpoint holds and drops later ones, so
    that the file reads as if nothing had happened.

    Args:
        path: of the CSV file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, str]] = {}

    @property
    def name(self) -> str:
        """Name of the logger, as Lightning wants one."""
        return "history"

    @property
    def version(self) -> str:
        """Version of the logger, as Lightning wants one."""
        return ""

    def take_up(self, last_step: int) -> None:
        """Keep the rows of steps up to `last_step` of an earlier part of the run."""
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("step"))
                if step <= last_step:
                    self.rows[step] = {name: value for name, value in row.items() if value != ""}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep values under their step; values logged twice for a step: the later."""
        row = self.rows.setdefault(int(step or 0), {})
        row.update({k: repr(float(v)) for k, v in metrics.items() if k != "epoch"})

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the resolved configuration is config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        names = {name for row in self.rows.values() for name in row}
        columns = [n for n in FIRST_COLUMNS if n in names]
        columns += sorted(names - set(columns))
        part = self.path.with_suffix(".csv.part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", *columns], restval="")
            writer.writeheader()
            writer.writerows({"step": str(s)} | row for s, row in sorted(self.rows.items()))
        part.replace(self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file at the end, however it came."""
        self.save()
