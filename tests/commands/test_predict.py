"""`predict` as it is typed: killed at any moment it goes on; what is wrong is one sentence."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def words(undisturbed: Any, terminal: Any) -> tuple[str, ...]:
    """Settings that score some hundred texts in windows of 8."""
    sides = ("negative", "positive")
    texts = (f"{n},{'a story ' * (1 + n % 9)},{sides[n % 2]}" for n in range(400))
    (terminal.folder / "new.csv").write_text("n,text,label\n" + "\n".join(texts) + "\n")
    return (f"run={undisturbed.last_path}", "input=new.csv", "window=8", "keep=n,label")


def test_evaluate_measures_what_was_written(terminal: Any, words: tuple[str, ...]) -> None:
    done = terminal.type("predict", *words, "output=out/scored.parquet")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "out/scored.parquet"
    assert [line for line in done.out.splitlines() if len(line) > 79] == []
    measured = terminal.type("evaluate", "table=out/scored.parquet", "out=measured")
    assert measured.code == 0 and (terminal.folder / "measured" / "metrics.json").is_file()


def test_killed_at_any_moment_it_goes_on_and_nothing_is_scored_twice(
    terminal: Any, words: tuple[str, ...]
) -> None:
    whole = terminal.type("predict", *words, "output=whole.csv")
    assert whole.code == 0, whole.err
    killed = 0
    for after in (1, 13, 30, 49):
        process = terminal.start("predict", *words, "output=scored.csv")
        wait_for_parts(process, terminal.folder, after)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2  # else nothing was shown
    parts = {path: path.stat().st_mtime_ns for path in terminal.folder.glob("*.parts/part-*")}
    done = terminal.type("predict", *words, "output=scored.csv")
    assert done.code == 0, done.err
    assert (terminal.folder / "scored.csv").read_bytes() == (
        terminal.folder / "whole.csv"
    ).read_bytes()
    scored = [line for line in " ".join(done.out.split()).split(".") if "scored now" in line]
    left = 400 - 8 * len(parts)
    assert [int(line.split()[0]) for line in scored] == ([left] if left else [])


def wait_for_parts(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    while process.poll() is None:
        if len(list(folder.glob("*.parts/part-*.arrow"))) >= count:
            return
        time.sleep(0.01)


def test_ctrl_c_is_no_error_of_ours(terminal: Any, words: tuple[str, ...]) -> None:
    process = terminal.start("predict", *words, "output=scored.csv")
    wait_for_parts(process, terminal.folder, 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=3000)
    if process.returncode:  # else it was done before
        assert (process.returncode, said) == (130, "Stopped. The same command goes on from here.\n")
    assert terminal.type("predict", *words, "output=scored.csv").code == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("output=scored.xlsx",), "the ending .xlsx"),
        (("output=scored.csv", "text=body"), "the column 'body' (text) is not there"),
        (("output=scored.csv", "input=other.csv"), "input=other.csv is not there"),
        ((), "No value was given for output"),
        (("output=new.csv/scored.csv",), "Not a directory"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_exit_code_2(
    more: tuple[str, ...], why: str, terminal: Any, words: tuple[str, ...]
) -> None:
    done = terminal.type("predict", *words, *more)
    said = " ".join(done.err.split())
    assert (done.code, said.startswith("error: "), why in said) == (2, True, True), done.err
    assert "allowed:" in said and "to do:" in said and "Traceback" not in said
