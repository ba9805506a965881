"""Comparing run folders, as a person types it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.command import guarded
from calib_ebm.report.__main__ import as_one_value, report

Settings = Callable[..., dict[str, Any]]


def test_a_run_is_compared_in_80_columns_and_the_page_is_named(
    undisturbed: Any, terminal: Any
) -> None:
    runs = terminal.folder / "runs"
    shutil.copytree(undisturbed.last_path, runs / "a")
    shutil.copytree(undisturbed.last_path, runs / "b")
    done = terminal.type("report", "runs=runs/a,runs/b", "resamples=20")
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if len(line) > 80] == []
    assert "sharp_hidden" in done.out and "1 seed" in done.out and "Accuracy" in done.out
    said = " ".join(done.out.split())
    assert "left out: runs/b: runs/a has the same settings and the same seed." in said
    page = terminal.folder / done.out.splitlines()[-1]
    assert page.name == "report.html" and page.parent.parent == terminal.folder / "reports"
    assert (page.parent / "tables" / "methods-embedded.tex").is_file()
    # A real run keeps its texts, and the page shows some.
    assert "The 10 texts of lowest energy" in page.read_text(encoding="utf-8")
    assert "no texts.parquet" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs=nowhere/*",), "nowhere/* names no run folder"),
        (('runs=""',), "runs= names no folder"),
        ((), "No value was given for runs"),
    ],
)
def test_what_names_no_run_is_refused(
    words: tuple[str, ...], said: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: report(settings(*words, of="report"))) == 2
    error = capsys.readouterr().err
    assert said in error and "\n  allowed: " in error and "\n  to do: " in error


def test_runs_may_be_a_list(settings: Settings, undisturbed: Any, tmp_path: Path) -> None:
    words = (f"runs=[{undisturbed.last_path}]", f"out={tmp_path / 'out'}", "resamples=20")
    report(settings(*words, of="report"))
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("value", ["a,b", "runs/[ab]*", "with blank", 'a "quoted" \\ one', "a=b"])
def test_any_list_of_paths_is_one_value(value: str, settings: Settings) -> None:
    words = as_one_value([f"runs={value}"])
    assert settings(*words, of="report")["runs"] == value
    assert as_one_value(words) == words  # in quotes already
