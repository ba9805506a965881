"""What a person can get wrong: exit code 2 and a sentence with what is allowed and what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from calib_ebm.command import guarded, wrapped
from calib_ebm.draw_noise import draw_noise
from calib_ebm.errors import InputError, Interrupted
from calib_ebm.learn.joint import JointModule
from calib_ebm.noise.bank import NoiseBank
from calib_ebm.train import train
from calib_ebm.tune_noise import tune_noise

Settings = Callable[..., dict[str, Any]]
ROWS = [(f"words of text {i}", ("good", "bad")[i % 2]) for i in range(40)]


def csv_file(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text(header + "\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused; what was said, its lines joined again."""

    def check(work: Callable[[], None], code: int = 2) -> str:
        assert guarded(work) == code
        said = capsys.readouterr().err
        assert [line for line in said.splitlines() if len(line) > 79 and "/" not in line] == []
        if code == 2:
            starts = ("error: ", "  allowed: ", "  to do: ")
            lines = [line for line in said.splitlines() if not line.startswith("    ")]
            heads = [line for line in lines if line.startswith(starts)]
            assert [h.startswith(s) for h, s in zip(heads, starts, strict=True)] == [True] * 3
        return " ".join(said.split())

    return check


# ------------------------------------------------------------------------------------ in the data


def own(settings: Settings, path: Path, *words: str) -> dict[str, Any]:
    """A task of one's own with small models."""
    small = ("encoder.name_or_path=small", "noise.lm=small", "task.max_length=16")
    shrunk = [w for w in settings.words if not w.startswith(("task.train_size", "task.dev_size"))]
    return settings.compose(*shrunk, "task=csv", f"task.train={path}", *small, *words)


def no_column(folder: Path) -> tuple[Path, list[str]]:
    return csv_file(folder / "a.csv", ROWS), ["task.text=review"]


def unknown_label(folder: Path) -> tuple[Path, list[str]]:
    dev = csv_file(folder / "dev.csv", [*ROWS[:6], ("more words", "ugly")])
    return csv_file(folder / "a.csv", ROWS), [f"task.dev={dev}"]


def one_class(folder: Path) -> tuple[Path, list[str]]:
    return csv_file(folder / "a.csv", [(t, "good") for t, _ in ROWS]), ["task.labels=[good,bad]"]


def one_class_in_dev(folder: Path) -> tuple[Path, list[str]]:
    dev = csv_file(folder / "dev.csv", [(t, "good") for t, _ in ROWS])
    return csv_file(folder / "a.csv", ROWS), [f"task.dev={dev}"]


def one_dev_text(folder: Path) -> tuple[Path, list[str]]:
    dev = csv_file(folder / "dev.csv", ROWS[:1])
    return csv_file(folder / "a.csv", ROWS), [f"task.dev={dev}"]


def not_utf8(folder: Path) -> tuple[Path, list[str]]:
    path = csv_file(folder / "a.csv", ROWS)
    path.write_bytes(path.read_bytes().replace(b"text 7", b"caf\xe9 7"))
    return path, []


def no_file(folder: Path) -> tuple[Path, list[str]]:
    return folder / "absent.csv", []


def only_a_header(folder: Path) -> tuple[Path, list[str]]:
    return csv_file(folder / "a.csv", []), []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_column, "the column 'review' (task.text) is not there. allowed: one of the file's"),
        (unknown_label, "ugly"),
        (one_class, "train has only the label 'good'"),
        (one_class_in_dev, "dev has only the label 'good'"),
        (one_dev_text, "dev has only the label 'good' (1 examples)"),
        (not_utf8, "a.csv, line 9: byte 14 of the line (0xe9) is not UTF-8"),
        (no_file, "absent.csv is not there"),
        (only_a_header, "holds no rows"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_of_ones_own_that_cannot_be_used(
    make: Any, said: str, settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    path, words = make(tmp_path)
    assert said in refused(lambda: train(own(settings, path, *words)))
