"""Checkpoints, Ctrl-C and progress, around a model so small that a training takes no time."""

from __future__ import annotations

import io
import itertools
import os
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from calib_ebm.errors import Interrupted, TrainingFailed
from calib_ebm.learn.callbacks import (
    KeepLast,
    LineProgress,
    StepBar,
    numbers_text,
)
from calib_ebm.learn.checkpoints import checkpoint_step, find_checkpoint, is_whole
from calib_ebm.learn.history import HistoryLogger

STEPS = 20
NUMBERS = {"loss": "loss/ce", "ece": "val/cal/ece"}


class FromStep(Sampler[list[int]]):
    """Numbers of the steps, from where the training stands, as in `StepBatches`."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[step] for step in range(self.first, STEPS)])

    def __len__(self) -> int:
        return STEPS


class Slope(pl.LightningModule):
    """One weight."""

    def __init__(self, at_step: Callable[[int], None] = lambda step: None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.at_step = at_step

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.at_step(self.global_step)
        loss = (self.weight - batch[0] / STEPS).square().mean()
        self.log("loss/ce", loss)
        self.log("step", float(self.global_step))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Any]:
        numbers = torch.arange(float(STEPS)).unsqueeze(-1)
        return DataLoader(TensorDataset(numbers), batch_sampler=FromStep(self.trainer.global_step))


def fit(folder: Path, module: Slope, *callbacks: Callback, every: int = 100) -> HistoryLogger:
    """Train to the end, from the checkpoint in `folder` if there is one."""
    folder.mkdir(exist_ok=True)
    resume, history = find_checkpoint(folder).path, HistoryLogger(folder / "history.csv")
    if resume is not None:
        history.take_up(checkpoint_step(resume))
    pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        log_every_n_steps=5,
        logger=history,
        callbacks=[KeepLast(folder, every), *callbacks],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, StepBar) for c in callbacks),
        default_root_dir=folder,
    ).fit(module, ckpt_path=resume, weights_only=True)
    return history


def at(step: int, action: Callable[[], None]) -> Callable[[int], None]:
    """Do something within one step."""
    return lambda now: action() if now == step else None


def send(*numbers: int) -> Callable[[], None]:
    """Send this process signals."""
    return lambda: [os.kill(os.getpid(), number) for number in numbers] and None


@pytest.fixture(autouse=True)
def handlers_are_as_before() -> Iterator[None]:
    """Whatever happens in a training, Ctrl-C means afterwards what it meant before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# -------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 7, STEPS - 1])
def test_a_signal_stops_after_the_step_and_going_on_makes_no_difference(
    number: int, step: int, tmp_path: Path
) -> None:
    whole = Slope()
    history = fit(tmp_path / "whole", whole)
    folder = tmp_path / "halted"
    with pytest.raises(Interrupted, match="last step" if step == STEPS - 1 else f"step {step + 1}"):
        fit(folder, Slope(at(step, send(number))))
    kept = find_checkpoint(folder).path
    assert kept is not None and checkpoint_step(kept) == step + 1
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "history.csv"}
    resumed = Slope(at(step, lambda: pytest.fail("a step is done twice")))
    again = fit(folder, resumed)
    assert torch.equal(resumed.weight, whole.weight) and whole.weight.item() != 0
    assert again.rows == history.rows and [*history.rows] == [4, 9, 14, 19]


def test_who_insists_is_obeyed_at_once(tmp_path: Path) -> None:
    reached: list[int] = []

    def twice(step: int) -> None:
        if step == 7:
            send(signal.SIGINT, signal.SIGINT)()
            reached.append(step)

    with pytest.raises(Interrupted, match="at once"):
        fit(tmp_path, Slope(twice), every=5)
    assert reached == []
    kept = find_checkpoint(tmp_path).path
    assert kept is not None and checkpoint_step(kept) == 5  # the one before, whole


def test_checkpoints_are_written_every_so_many_steps_or_seconds(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch(KeepLast):
        def _write(self, trainer: pl.Trainer) -> None:
            seen.append(trainer.global_step)
            super()._write(trainer)

    trainer_of = {"accelerator": "cpu", "max_steps": STEPS, "logger": False}
    for watch in (Watch(tmp_path, 6), Watch(tmp_path, 10**6, every_seconds=0.0)):
        pl.Trainer(
            **trainer_of,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
        ).fit(Slope())
    assert seen == [6, 12, 18, *range(STEPS)]


def test_a_checkpoint_that_would_take_too_much_of_the_time_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second, and to write a checkpoint a tenth."""
    clock, seen = [0.0], []
    monkeypatch.setattr(
        "calib_ebm.learn.callbacks.time", SimpleNamespace(monotonic=lambda: clock[0])
    )

    def second(step: int) -> None:
        clock[0] += 1.0

    class Watch(KeepLast):
        def _make_room(self) -> None:
            super()._make_room()
            clock[0] += 0.1

        def _write(self, trainer: pl.Trainer) -> None:
            seen.append(trainer.global_step)
            super()._write(trainer)

    for number, (share, seconds) in enumerate(((None, 300), (0.05, 300), (0.02, 300), (0.02, 3))):
        fit(tmp_path / str(number), Slope(second), Watch(tmp_path, 1, seconds, share))
    every_fifth = [*range(1, STEPS, 5)]  # nor sooner because some seconds are over
    assert seen == [*range(1, STEPS), *range(1, STEPS, 2), *every_fifth, *every_fifth]


def test_a_checkpoint_that_is_refused_leaves_both_that_are_there(tmp_path: Path) -> None:
    class Refuses(Slope):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            if self.global_step == 12:
                raise TrainingFailed("The loss is nan.")

    with pytest.raises(TrainingFailed):
        fit(tmp_path, Refuses(), every=4)
    kept = {path.name: checkpoint_step(path) for path in tmp_path.glob("*.ckpt")}
    assert kept == {"last.ckpt": 8, "before.ckpt": 4}


def test_an_error_leaves_the_checkpoint_and_the_handlers(tmp_path: Path) -> None:
    def fails() -> None:
        raise TrainingFailed("The loss is nan.")

    with pytest.raises(TrainingFailed):
        fit(tmp_path, Slope(at(9, fails)), every=4)
    kept = find_checkpoint(tmp_path).path
    assert kept is not None and checkpoint_step(kept) == 8


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path: Path) -> None:
    """Within a tensor: torch would read it as it is."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        part = next(p for p in archive.infolist() if "/data/" in p.filename)
        content[content.index(archive.read(part), part.header_offset)] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_byte, empty])
def test_a_broken_checkpoint_is_passed_over_for_the_one_before_and_said(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    whole = Slope()
    history = fit(tmp_path / "whole", whole)
    folder = tmp_path / "halted"
    with pytest.raises(Interrupted):
        fit(folder, Slope(at(13, send(signal.SIGINT))), every=6)
    assert checkpoint_step(folder / "last.ckpt") == 14
    assert checkpoint_step(folder / "before.ckpt") == 12
    assert find_checkpoint(folder) == (folder / "last.ckpt", "")

    damage(folder / "last.ckpt")
    found = find_checkpoint(folder)
    assert found.path == folder / "before.ckpt"
    assert str(folder / "last.ckpt") in found.note and "goes on from the one before" in found.note
    resumed = Slope(at(11, lambda: pytest.fail("a step of before the checkpoint is done again")))
    assert fit(folder, resumed, every=6).rows == history.rows
    assert torch.equal(resumed.weight, whole.weight) and whole.weight.item() != 0
    # Never a broken one in the place of a whole one.
    assert is_whole(folder / "last.ckpt") and is_whole(folder / "before.ckpt")

    damage(folder / "last.ckpt")
    damage(folder / "before.ckpt")
    found = find_checkpoint(folder)
    assert found.path is None and "begins anew" in found.note
    anew = Slope()
    assert fit(folder, anew).rows == history.rows and torch.equal(anew.weight, whole.weight)


class Killed(BaseException):
    """In place of the process's end."""


def die_at_change(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die in place of this change of a checkpoint's name."""
    names, calls = {"last.ckpt", "before.ckpt"}, itertools.count(1)

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(path: Path, *args: Any, **further: Any) -> Any:
            if {path.name, *(Path(arg).name for arg in args)} & names and next(calls) == number:
                raise Killed
            return original(path, *args, **further)

        return change

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))


def test_killed_while_a_checkpoint_is_written_it_goes_on_from_a_whole_one(tmp_path: Path) -> None:
    whole = Slope()
    history = fit(tmp_path / "whole", whole)
    steps = []
    for number in range(1, 9):
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            die_at_change(number, patch)
            with pytest.raises(Killed):
                fit(folder, Slope(), every=4)
        found = find_checkpoint(folder)
        assert found.note == ""
        steps.append(0 if found.path is None else checkpoint_step(found.path))
        resumed = Slope()
        assert fit(folder, resumed, every=4).rows == history.rows
        assert torch.equal(resumed.weight, whole.weight)
    # The first is put in place; then each time what was before the last goes, the last becomes the
    # one before, and the new one comes in place.
    assert steps == [0, *(4, 4, 4), *(8, 8, 8), 12]


def test_there_is_no_checkpoint_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.part").touch()
    assert find_checkpoint(tmp_path).path is None


# ----------------------------------------------------------------------------------------- progress


class Screen(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True

    @property
    def frames(self) -> list[str]:
        """What stood on the line, one after another."""
        return [frame for frame in re.split(r"[\r\n]", self.getvalue()) if frame.strip()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 80 columns in place of stderr."""
    screen = Screen()
    monkeypatch.setattr("calib_ebm.learn.callbacks.sys", SimpleNamespace(stderr=screen))
    monkeypatch.setenv("COLUMNS", "80")
    return screen


def test_the_bar_is_one_line_that_leaves_room_and_ends(screen: Screen, tmp_path: Path) -> None:
    fit(tmp_path, Slope(), StepBar("training", NUMBERS, refresh_rate=1))
    frames = screen.frames
    assert max(len(frame) for frame in frames) <= 77
    assert all(frame.startswith("training ") for frame in frames)
    assert "| 0/20 " in frames[0] and "100%" in frames[-1] and "| 20/20 " in frames[-1]
    assert re.search(r"loss 0\.\d\d$", frames[-1].rstrip())
    assert screen.getvalue().count("\n") == 1 and screen.getvalue().endswith("\n")


def test_the_bar_of_a_resumed_training_begins_where_it_stands_and_an_error_ends_it(
    screen: Screen, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, Slope(at(6, send(signal.SIGINT))), StepBar("training", NUMBERS))
    assert screen.getvalue().endswith("\n") and "| 7/20 " in screen.frames[-1]
    before = len(screen.frames)
    fit(tmp_path, Slope(), StepBar("training", NUMBERS))
    assert " 35%|" in screen.frames[before] and "| 7/20 " in screen.frames[before]


def test_a_bar_that_is_turned_off_shows_nothing(screen: Screen, tmp_path: Path) -> None:
    bar = StepBar("training", NUMBERS)
    bar.disable()
    fit(tmp_path, Slope(), bar)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("parts", "steps"), [(4, [5, 10, 15, 20]), (3, [7, 14, 20])])
def test_lines_come_each_time_a_part_is_done(parts: int, steps: list[int], tmp_path: Path) -> None:
    said: list[str] = []
    fit(tmp_path, Slope(), LineProgress("training", NUMBERS, said.append, parts))
    assert [int(line.split()[2]) for line in said] == steps
    assert said[-1].startswith("training: step 20 of 20, loss ")


def test_numbers_are_short_and_absent_ones_left_out() -> None:
    logged = {"a": torch.tensor(-0.001), "b/acc": 0.5, "c": 12345.6, "d": float("nan")}
    numbers = {"a": "a", "b": "b/acc", "c": "c", "d": "d", "e": "e"}
    assert numbers_text(numbers, logged, " ") == "a 0.00 b 50.0% c 1.235e+04 d nan"
