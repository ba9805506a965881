"""Memory of `predict` does not grow with the rows: in a process of its own, all but the encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

STUBBED = Path(__file__).parents[2] / "scripts" / "bench" / "stubbed.py"
FEW = 4_000


def scored(folder: Path, rows: int, ending: str, *words: str) -> dict[str, Any]:
    """Seconds and peak memory of scoring so many rows."""
    home = folder / str(rows)
    if not home.exists():
        home.mkdir()
        make = [sys.executable, str(STUBBED), "make", str(home), str(rows)]
        subprocess.run(make, check=True, capture_output=True)
    places = (f"run={home}/model", f"input={home}/new.csv", f"output={home}/out{ending}")
    command = [sys.executable, str(STUBBED), "predict", *places, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"{rows:,} scored now" in " ".join(done.stdout.split())
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_ten_times_the_rows_take_the_same_memory(tmp_path: Path) -> None:
    few, many = (scored(tmp_path, rows, ".parquet")["peak_mb"] for rows in (FEW, 10 * FEW))
    # The control: a window that holds all rows at once.
    whole = scored(tmp_path, 10 * FEW, ".csv", "window=1000000", "tokens_per_pass=2000000")
    grown = whole["peak_mb"] - few
    assert grown > 0.1 * few
    assert many - few < grown / 3
