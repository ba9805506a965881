"""Each label loss trains on the embedded task, with and without an energy, and goes on exactly."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calib_ebm.errors import Interrupted
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.run import run

Settings = Callable[..., dict[str, Any]]


def quiet(_: str) -> None:
    """Nobody listens."""


def rows(folder: Path) -> list[dict[str, str]]:
    """history.csv."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(ours: Path, theirs: Path) -> bool:
    """Whether two runs have the same weights."""
    first, second = weights(ours), weights(theirs)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        ("none", ("loss=label_smoothing",)),
        ("none", ("loss=focal",)),
        ("none", ("loss=confidence_penalty", "loss.beta=2")),
        ("sharp_hidden", ("loss=label_smoothing",)),
    ],
)
def test_each_trains_and_tells_the_cross_entropy_too(
    settings: Settings, energy: str, words: tuple[str, ...]
) -> None:
    short = ("trainer.max_steps=3", f"energy={energy}")
    folder = run(settings(*short, *words, run="ours"), quiet)
    plain = run(settings(*short, run="plain"), quiet)
    ours, theirs = rows(folder), rows(plain)
    assert "loss/label" not in theirs[0]
    # The same weights to begin with, another loss of them, and so other weights at the end.
    assert ours[0]["loss/ce"] == theirs[0]["loss/ce"]
    assert all(row["loss/label"] != row["loss/ce"] for row in ours)
    assert ("loss/nce" in ours[0]) == (energy != "none")
    assert not same(folder, plain)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["loss"] == words[0].removeprefix("loss=")


def resumed_and_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int, *words: str
) -> tuple[Path, Path]:
    """A run that Ctrl-C stopped within a step and that went on; one that was left alone."""
    whole = run(settings(*words, run="whole"), quiet)
    halted = settings(*words, run="halted")
    original = JointModule.training_step

    def stopped(self: JointModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(JointModule, "training_step", stopped)
        with pytest.raises(Interrupted, match=f"step {step + 1} of 12"):
            run(halted, quiet)
    return run(halted, quiet), whole
