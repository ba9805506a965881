"""What several processes ask for is made once, and the lock of a killed process is let go."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from calib_ebm.lock import only_one


def _hold(folder: Path, inside: bool, held: Event, release: Event) -> None:
    with only_one(folder, lambda line: None, inside):
        held.set()
        release.wait(20)


@pytest.mark.parametrize("inside", [False, True])
def test_of_two_processes_one_makes_and_the_other_waits_and_says_so(
    tmp_path: Path, inside: bool
) -> None:
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "bank", inside, held, release))
    process.start()
    assert held.wait(20)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        release.set()

    with only_one(tmp_path / "bank", say, inside):
        assert said == [f"Another process is making {tmp_path / 'bank'}; waiting for it."]
    assert (tmp_path / "bank" / ".lock").exists() == inside
    process.join(20)
    assert process.exitcode == 0


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "bank", False, held, release))
    process.start()
    assert held.wait(20)
    process.kill()
    start = time.monotonic()
    with only_one(tmp_path / "bank", lambda line: None):
        assert time.monotonic() - start < 10
    process.join(20)
