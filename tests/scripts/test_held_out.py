"""Which setting is best on held-out texts, from made-up tables."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calib_ebm.report.predictions import Predictions, write_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "held_out.py"


def write(folder: Path, method: str, seed: int, odds: float, **changed: object) -> None:
    """Four texts held out, of which three are right, at these odds; two that are reported."""
    table = Predictions(
        ids=tuple("abcdef"),
        splits=("fit",) * 4 + ("test",) * 2,
        labels_N=np.array([0, 0, 0, 1, 1, 1]),
        logits_NC=np.array([[math.log(odds), 0.0]] * 6),
        energy_N=None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder, Predictions(**{**vars(table), **changed}))
    (folder / "predictions.parquet").rename(folder / f"{method}-seed{seed}.parquet")


def printed(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)


def nll(odds: float) -> float:
    return -(3 * math.log(odds / (1 + odds)) + math.log(1 / (1 + odds))) / 4


def short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def test_the_lowest_nll_of_a_task_is_in_bold_and_what_is_reported_says_nothing(
    tmp_path: Path,
) -> None:
    for seed, odds in ((1, 3.0), (2, 2.0)):  # 3 is what is true of the held-out texts
        write(tmp_path / "sst2", "calm", seed, odds)
        write(tmp_path / "sst2", "sure", seed, 20.0)
    done = printed(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    calm = f"{short((nll(3) + nll(2)) / 2)} ({short(nll(3))}, {short(nll(2))})"
    sure = f"{nll(20):.4f}".removeprefix("0")
    assert rows == [
        ["sst2", "calm", "4", "2", f"**{calm}**", ".750 (.750, .750)"],
        ["sst2", "sure", "4", "2", f"{sure} ({sure}, {sure})", ".750 (.750, .750)"],
    ]


@pytest.mark.parametrize("case", ["seeds", "texts", "crossfit", "nothing"])
def test_what_cannot_be_compared_is_refused(case: str, tmp_path: Path) -> None:
    if case != "nothing":
        write(tmp_path / "rte", "calm", 1, 3.0)
    if case == "seeds":
        write(tmp_path / "rte", "sure", 2, 3.0)
    if case == "texts":
        write(tmp_path / "rte", "sure", 1, 3.0, ids=tuple("abcxef"))
    if case == "crossfit":
        write(tmp_path / "rte", "sure", 1, 3.0, splits=("test",) * 6, folds_N=np.arange(6) % 2)
    done = printed(tmp_path)
    said = {
        "seeds": "calm: 1; sure: 2",
        "texts": "not measured on the same held-out texts",
        "crossfit": "no held-out texts",
        "nothing": "no tables",
    }
    assert done.returncode == 2 and said[case] in done.stderr and done.stdout == ""
