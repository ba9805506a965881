"""What the parts of the benchmark share: turns, ratios, and that one part fails alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench.rows, as the parts see it."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench.rows

    return bench.rows


def test_what_is_compared_runs_in_turn_and_turns_round(rows: ModuleType) -> None:
    order: list[str] = []
    what = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = rows.in_turn(what, rounds=2, warm_up=1)
    assert "".join(order) == "abc" + "abc" + "cba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_ratio_is_the_median_within_rounds(rows: ModuleType) -> None:
    # A round that was slow as a whole says as much as any other.
    row = rows.compared("part", "case", [1.0, 10.0, 1.0], [2.0, 20.0, 3.0])
    assert row.ratio == 2.0 and (row.low, row.high) == (2.0, (2.0 + 3.0) / 2)
    assert row.ours == 1.0 and row.theirs == 3.0
    assert rows.compared("part", "case", [1.0], [2.0], inverse=True).ratio == 0.5


def copy_of_the_benchmark(folder: Path, **parts: str) -> Path:
    """The command with other parts than its own."""
    (folder / "bench").mkdir()
    shutil.copy(SCRIPTS / "bench.py", folder)
    for name in ("__init__.py", "rows.py"):
        shutil.copy(SCRIPTS / "bench" / name, folder / "bench")
    for name, source in parts.items():
        (folder / "bench" / f"{name}.py").write_text(source)
    return folder / "bench.py"


MEASURES = """
from bench.rows import compared
def measure(options):
    return [compared("scoring", "a" * 40, [1.0], [2.0], note="words " * 20, wanted="at least 2")]
"""


def test_a_part_that_fails_or_is_not_there_leaves_the_others(tmp_path: Path) -> None:
    command = copy_of_the_benchmark(
        tmp_path,
        step="def measure(options):\n    raise ValueError('no memory left')",
        startup="import a_library_that_is_not_there",
        scoring=MEASURES,
    )
    done = subprocess.run(
        [sys.executable, str(command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no memory left" in done.stderr and "a_library_that_is_not_there" in done.stderr
    assert "there is no scripts/bench/noise.py here" in done.stdout
    assert "2 [2, 2]" in done.stdout and "wanted: at least 2" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


HALF_WAY = """
from bench.rows import compared
def measure(options):
    for number in (1.0, 2.0, 4.0):
        for note in ("first", "second"):
            yield compared("scoring", f"case {number:g}", [1.0], [number], note=note)
    raise ValueError("no memory left")
"""


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path) -> None:
    command = copy_of_the_benchmark(tmp_path, scoring=HALF_WAY)
    words = ["--part", "scoring", "--json", str(tmp_path / "kept.json")]
    done = subprocess.run(
        [sys.executable, str(command), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [row["ratio"] for row in kept["rows"]] == [1, 1, 2, 2, 4, 4]
    assert "no memory left" in kept["failed"]["scoring"] and not kept["complete"]
    # Rows of one note stand together, whatever the order in which they came.
    notes = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    assert notes == ["- first", "- second"]
    assert done.stdout.count("case 4") == 2 and done.stderr.count("case 4") == 2
