"""The price of calibration, read off made-up tables whose prices and errors are known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np

from calib_ebm.report.predictions import Predictions, write_table

SCRIPT = Path(__file__).parents[1] / "scripts" / "price.py"
RIGHT = 0.7
CONFIDENCE = {"none": 0.95, "all": 0.72, "quarter": 0.73, "wasteful": 0.9, "smoothing": 0.85}
NOISE = {"all": (150.0, 50.0), "quarter": (30.0, 10.0), "wasteful": (300.0, 300.0)}
TRAIN = {"none": 100.0, "all": 200.0, "quarter": 110.0, "wasteful": 200.0, "smoothing": 101.0}


def table(folder: Path, method: str, seed: int) -> None:
    """A model as sure as `CONFIDENCE` says and right in 70 of 100 texts."""
    size = 400
    right = np.arange(size) % 10 < 10 * RIGHT
    logit = math.log(CONFIDENCE[method] / (1 - CONFIDENCE[method]))
    logits_NC = np.zeros((size, 2))
    logits_NC[:, 1] = logit
    kept = folder / "cola" / f"{method}-seed{seed}.parquet"
    kept.parent.mkdir(parents=True, exist_ok=True)
    predictions = Predictions(
        ids=tuple(f"dev-{n}" for n in range(size)),
        splits=("fit",) * (size // 2) + ("test",) * (size // 2),
        labels_N=right.astype(np.int64),
        logits_NC=logits_NC,
        energy_N=np.zeros(size) if method in NOISE else None,
    )
    write_table(folder, predictions)
    (folder / "predictions.parquet").rename(kept)


def tables(folder: Path) -> Path:
    """Tables of two seeds of each method, and what they cost."""
    costs = {}
    for seed in (1, 2):
        for method in CONFIDENCE:
            table(folder, method, seed)
            tune, draw = NOISE.get(method, (None, None))
            cost = {"tune_noise": tune, "draw_noise": draw, "train": seed * TRAIN[method]}
            costs[f"cola-{method}-seed{seed}"] = cost
    (folder / "costs.json").write_text(json.dumps(costs))
    return folder


def priced(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prices_are_ratios_and_the_front_is_marked(tmp_path: Path) -> None:
    done = priced(tables(tmp_path / "tables"), "--figure", str(tmp_path / "price.svg"))
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines()[2:]:
        _, method, seeds, ece, _, _, gain, training, whole = line.strip("| ").split(" | ")
        assert seeds == "2"
        found[method] = (ece[:5], gain, training, whole)
    # Seeds 1 and 2 train for 100 and 200 s plain. all: (200 + 400)/300, and (600 + 2 * 200)/300.
    assert found == {
        "**none**": ("0.250", "0%", "1.00", "1.00"),
        "**all**": ("0.020", "100%", "2.00", "3.33"),
        "**quarter**": ("0.030", "96%", "1.10", "1.37"),
        "wasteful": ("0.200", "22%", "2.00", "6.00"),
        # It needs no noise, so its training is all that it costs.
        "**smoothing**": ("0.150", "43%", "1.01", "1.01"),
    }
    figure = (tmp_path / "price.svg").read_text()
    assert figure.lstrip().startswith("<?xml") and "<svg" in figure


def test_what_was_not_timed_is_left_out_and_named(tmp_path: Path) -> None:
    folder = tables(tmp_path)
    costs = json.loads((folder / "costs.json").read_text())
    for seed in (1, 2):
        costs[f"cola-all-seed{seed}"]["tune_noise"] = None
    (folder / "costs.json").write_text(json.dumps(costs))
    done = priced(folder)
    assert done.returncode == 0 and "| **all** |" not in done.stdout
    assert "left out, its seconds are not known: all" in done.stderr
    del costs["cola-none-seed1"], costs["cola-none-seed2"]
    (folder / "costs.json").write_text(json.dumps(costs))
    done = priced(folder)
    assert done.returncode == 2 and "no priced none" in done.stderr


def test_a_folder_without_costs_says_so(tmp_path: Path) -> None:
    done = priced(tmp_path / "none")
    assert done.returncode == 2 and "cannot be priced" in done.stderr
