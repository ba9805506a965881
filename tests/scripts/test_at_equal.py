"""Plain fine-tuning stopped where it is as good, on made-up courses whose crossing is known."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "at_equal.py"


Row = tuple[int, float, float, float]


def history(runs: Path, method: str, seed: int, rows: list[Row], status: str = "complete") -> None:
    """Steps that only trained stand between those that measured."""
    folder = runs / f"cola-{method}-seed{seed}"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": status}))
    with (folder / "history.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["step", "loss/ce", "val/cls/mcc", "val/cal/ece", "val/nll"])
        for step, metric, ece, nll in rows:
            writer.writerow([step - 1, 0.5, "", "", ""])
            writer.writerow([step, "", metric, ece, nll])


def at_equal(runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(runs), "cola", "--metric", "val/cls/mcc", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_baseline_is_read_where_it_was_as_good(tmp_path: Path) -> None:
    for seed in (1, 2):
        shift = 0.01 * (2 * seed - 3)  # means over seeds are those of the middle
        plain = [(10, 0.0, 0.05, 0.6), (20, 0.1 + shift, 0.1, 0.7), (30, 0.2 + shift, 0.2, 0.9)]
        history(tmp_path, "none", seed, plain)
        history(tmp_path, "hidden-k1", seed, [(10, 0.0, 0.04, 0.6), (30, 0.15 + shift, 0.03, 0.5)])
        history(tmp_path, "better", seed, [(30, 0.5, 0.01, 0.4)])
    history(tmp_path, "hidden-k1", 3, [(10, 0.9, 0.9, 0.9)], status="interrupted")
    rows = {cells(row)[0]: cells(row)[1:] for row in at_equal(tmp_path).stdout.splitlines()[2:]}
    # Half way between the second and the third of the baseline's measurements.
    assert rows["hidden-k1"] == ["0.150", "0.030", "0.500", "25", "0.150", "0.800"]
    assert rows["none"] == ["0.200", "0.200", "0.900", "30", "0.200", "0.900"]
    assert rows["better"][3:] == ["-", "-", "-"], "the baseline never was as good"
    alone = at_equal(tmp_path, "--seeds", "2").stdout
    assert "| hidden-k1 | 0.160 |" in alone


def test_without_a_baseline_it_says_what_there_is(tmp_path: Path) -> None:
    history(tmp_path, "hidden-k1", 1, [(10, 0.0, 0.04, 0.6)])
    done = at_equal(tmp_path)
    assert done.returncode == 2 and "there are hidden-k1." in done.stderr and not done.stdout
