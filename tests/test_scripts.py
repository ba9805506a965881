"""The scripts run on small made-up input, so that a renamed function is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare_energies.py"


def made_up(folder: Path, energy: str, seed: int, ece: float, status: str = "complete") -> None:
    """A run folder with the little that the script reads."""
    folder.mkdir()
    noise = None if energy == "none" else "masked"
    stages = {"train": {"seconds": 10.0 * seed}}
    run = {"energy": energy, "noise": noise, "seed": seed, "status": status, "stages": stages}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.json").write_text(json.dumps({"test/cls/acc": 0.5, "test/cal/ece": ece}))


def test_energies_are_compared_in_pairs_of_the_same_seed(tmp_path: Path) -> None:
    for seed, (plain, joint) in enumerate([(0.20, 0.10), (0.30, 0.21), (0.40, 0.29)], start=1):
        made_up(tmp_path / f"none-{seed}", "none", seed, plain)
        made_up(tmp_path / f"hidden-{seed}", "hidden", seed, joint)
    made_up(tmp_path / "hidden-4", "hidden", 4, 0.9, status="interrupted")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "*"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "left out, not finished: hidden-4" in done.stderr
    none, hidden = done.stdout.splitlines()[2:]
    assert none.startswith("| none | - | 3 | 0.500 | 0.300 |")
    # Differences -.10, -.09, -.11: mean -.1, deviation .01, t(.975, 2) = 4.303.
    assert "| 0.200 (-0.100 [-0.125, -0.075]) |" in hidden


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made_up(tmp_path / name, "none", 1, 0.1)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "*"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0 and "two runs" in done.stderr
