"""run.json, across the parts that a run may be done in."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from calib_ebm.learn import record
from calib_ebm.learn.record import RunRecorder, command_line, git_commit, peak_memory_mb, versions


def plain(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return loaded


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock to set, and memory of as many MiB."""
    now = [100.0]
    monkeypatch.setattr(record.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(record.time, "process_time", lambda: 2 * now[0])
    monkeypatch.setattr(record, "peak_memory_mb", lambda: now[0])
    return now


def test_a_stage_done_in_parts_adds_up_and_keeps_the_higher_peak(
    tmp_path: Path, clock: list[float]
) -> None:
    def stopped() -> None:
        with RunRecorder(tmp_path).stage("train"):
            clock[0] += 7
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    clock[0] = 50.0
    with RunRecorder(tmp_path).stage("train"):
        clock[0] += 5
    entry = {
        "seconds": 12.0,
        "cpu_seconds": 24.0,
        "peak_memory_mb": 107.0,
        "skipped": False,
    }
    assert plain(tmp_path)["stages"] == {"train": entry}


def test_a_stage_that_was_skipped_keeps_what_it_once_cost(
    tmp_path: Path, clock: list[float]
) -> None:
    recorder = RunRecorder(tmp_path)
    with recorder.stage("found") as stage:
        clock[0] += 1
        stage["skipped"] = True
    assert plain(tmp_path)["stages"]["found"]["skipped"]
    with recorder.stage("made"):
        clock[0] += 2
    with RunRecorder(tmp_path).stage("made") as stage:
        clock[0] += 4
        stage["skipped"] = True
    assert plain(tmp_path)["stages"]["made"] == {
        "seconds": 2.0,
        "cpu_seconds": 4.0,
        "peak_memory_mb": 103.0,
        "skipped": False,
    }


def test_facts_and_notes_are_kept_each_once(tmp_path: Path) -> None:
    RunRecorder(tmp_path).set(task="sst2", temperature=np.float64(1.5), nothing=float("nan"))
    again = RunRecorder(tmp_path)
    again.note("first", "", "second")
    again.note("second", "third")
    there = plain(tmp_path)
    assert there["notes"] == ["first", "second", "third"]
    assert (there["task"], there["temperature"], there["nothing"]) == ("sst2", 1.5, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"stages": 3}', "\x00"])
def test_a_broken_file_is_begun_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with RunRecorder(tmp_path).stage("load"):
        pass
    assert [*plain(tmp_path)["stages"]] == ["load"]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, active=False)
    recorder.set(task="sst2")
    with recorder.stage("train"):
        pass
    assert [*tmp_path.iterdir()] == []


def test_the_command_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["task=csv", "task.text=my column", "noise.tune={lr: 1}"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", *words])
    main = SimpleNamespace(__spec__=SimpleNamespace(name="calib_ebm.train"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert shlex.split(command_line()) == ["python", "-m", "calib_ebm.train", *words]
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert shlex.split(command_line()) == ["python", "/somewhere/train.py", *words]


def test_versions_name_what_changes_numbers() -> None:
    found = versions()
    assert {"python", "calib-ebm", "torch", "transformers", "numpy"} <= {*found}
    assert found["numpy"] == np.__version__


def test_a_commit_is_that_of_the_checkout_and_says_when_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "calib_ebm" / "learn"
    package.mkdir(parents=True)
    monkeypatch.setattr(record, "__file__", str(package / "record.py"))
    assert git_commit() is None  # a wheel, or a folder without history

    def git(*words: str) -> str:
        name = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", *name, "-C", str(tmp_path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert git_commit() is None  # nothing is committed yet
    (package / "record.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "x")
    assert git_commit() == git("rev-parse", "HEAD")
    (package / "record.py").write_text("x = 2\n")
    assert git_commit() == git("rev-parse", "HEAD") + "+changes"


@pytest.mark.parametrize("has_gpu", [False, True])
def test_memory_is_measured_in_mib(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU also where there is a GPU, if it has nothing to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    before = peak_memory_mb()
    block = np.ones(16 * 2**20, dtype=np.float64)  # 128 MiB
    assert peak_memory_mb() >= before
    assert peak_memory_mb() > 128
    assert block[-1] == 1
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert (peak_memory_mb() == 3) is has_gpu
