"""stress.csv: written, read, merged, and shown in 80 columns."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from calib_ebm.errors import InputError
from calib_ebm.report.console import stress_tables
from calib_ebm.report.stress import COLUMNS, StressRow, read_stress, write_stress

WHERE = ("clean", "clean", None, "test", "deterministic", "none")
CLEAN = StressRow(*WHERE, n=436, metric="test/nll", value=0.5, low=0.4, high=0.6)
TYPOS = replace(
    CLEAN,
    set="typos-0.1",
    kind="typos",
    rate=0.1,
    folder="typos-0.1",
    difference=1 / 3,
    difference_low=0.1,
    difference_high=0.5,
    paired=True,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("test", "typos-0.1", "other"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_what_is_written_is_read_again_to_the_last_digit(home: Path) -> None:
    write_stress(home, (CLEAN, TYPOS))
    assert read_stress(home) == (CLEAN, TYPOS)
    assert tuple((home / "stress.csv").read_text().splitlines()[0].split(",")) == COLUMNS
    plain = json.loads((home / "stress.json").read_text())
    assert plain[0]["difference"] is None and plain[1]["paired"] is True
    assert plain[1]["difference"] == 1 / 3


def test_a_later_evaluation_replaces_its_own_rows_and_those_without_a_folder(
    home: Path,
) -> None:
    write_stress(home, (CLEAN, TYPOS, replace(TYPOS, set="other", folder="other")))
    (home / "other").rmdir()
    better = replace(CLEAN, value=0.25)
    assert write_stress(home, (better,)) == read_stress(home) == (TYPOS, better)


@pytest.mark.parametrize("text", ["", "set,kind\nclean,clean\n", "\x00", "just words\n1\n"])
def test_a_file_that_is_none_is_named(text: str, home: Path) -> None:
    write_stress(home, (CLEAN,))
    (home / "stress.csv").write_text(text)
    with pytest.raises(InputError, match=r"stress\.csv cannot be used"):
        read_stress(home)


def test_the_tables_fit_80_columns_and_a_name_is_no_markup() -> None:
    named = replace(TYPOS, set="[bold]books", metric="test_calibrated/nll")
    console = Console(width=79, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    tables = stress_tables((replace(CLEAN, metric="test_calibrated/nll"), named))
    for table in tables:
        console.print(table)
    text = console.export_text()
    assert "[bold]books" in text and "0.333 [0.100, 0.500]" in text
    assert max(map(len, text.splitlines())) <= 79 and "…" not in text


def test_evaluations_at_the_same_time_lose_no_rows(tmp_path: Path) -> None:
    sets = [f"set-{number}" for number in range(12)]
    for name in sets:
        (tmp_path / name).mkdir()

    def evaluate(name: str) -> None:
        write_stress(tmp_path, (replace(TYPOS, set=name, folder=name),))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(evaluate, sets))
    assert {row.set for row in read_stress(tmp_path)} == {*sets}
