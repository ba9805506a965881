"""The benchmark in its short form: what it writes, and that nothing is far off; no seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench.py"


def bench(*words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The table and the JSON of the joint step in short."""
    path = tmp_path_factory.mktemp("bench") / "new" / "bench.json"
    done = bench("--part", "step", "--short", "--json", str(path), "--threads", "1")
    return done.stdout, json.loads(path.read_text())


def test_the_json_says_what_was_measured_and_where(short: tuple[str, dict[str, Any]]) -> None:
    _, written = short
    assert written["threads"] == 1 and written["short"] is True and written["failed"] == {}
    assert {"processor", "cores", "system"} <= written["machine"].keys()
    assert {"python", "torch", "transformers"} <= written["versions"].keys()
    assert {row["part"] for row in written["rows"]} == {"step"}
    for row in written["rows"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ours"] > 0 and row["theirs"] > 0


def test_the_table_fits_a_terminal_and_has_every_case(short: tuple[str, dict[str, Any]]) -> None:
    table, written = short
    lines = table.splitlines()
    assert max(len(line) for line in lines) <= 80
    for row in written["rows"]:
        assert any(row["case"] in line for line in lines)


def test_the_joint_step_is_faster_than_the_references(short: tuple[str, dict[str, Any]]) -> None:
    """Generously: it is 6 times as fast and more where nobody else uses the machine."""
    rows = [row for row in short[1]["rows"] if "reference" in row["note"] and row["unit"] == "s"]
    assert rows
    assert all(row["ratio"] > 1.3 for row in rows)
    (memory,) = [row for row in short[1]["rows"] if row["unit"] == "MB"]
    assert memory["ratio"] <= 1.5 and memory["further"]["at once, MB"] > 1.5 * memory["theirs"]
    real = [row for row in short[1]["rows"] if "tokens that all layers" in row["note"]]
    assert real and all(row["ratio"] >= 0.95 for row in real)


def test_a_wrong_word_is_refused(tmp_path: Path) -> None:
    assert "no folder" in bench("--glue", str(tmp_path / "none"), expect=2).stderr
    assert "from 1" in bench("--rounds", "0", expect=2).stderr
    assert "invalid choice" in bench("--part", "steps", expect=2).stderr
