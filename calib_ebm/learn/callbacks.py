"""What happens around the training: checkpoints, Ctrl-C, the progress bar."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from calib_ebm.errors import Interrupted

LAST = "last.ckpt"


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from, or None."""
    path = folder / LAST
    return path if path.exists() else None


def checkpoint_step(path: Path) -> int:
    """The step that a checkpoint was written at."""
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])


class KeepLast(Callback):
    """Writes one checkpoint, `last.ckpt`, every so many steps or seconds; Ctrl-C writes it and stops.

    A checkpoint is always written at the start of a step, when all of the step before, its validation too, is
    done: what is resumed from it repeats nothing and leaves nothing out. The file is put in place
    atomically and holds plain values and tensors only.

    Args:
        folder: where the checkpoint is kept.
        every_n_steps: distance between checkpoints in steps.
        every_seconds: and in seconds, whichever comes first (one process; ranks keep to steps).
    """

    def __init__(self, folder: Path, every_n_steps: int, every_seconds: float = 300.0) -> None:
        self.folder = folder
        self.every_n_steps = max(1, every_n_steps)
        self.every_seconds = every_seconds
        self._stop = False
        self._written_at = time.monotonic()
        self._handlers: dict[int, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for Ctrl-C and for a scheduler's request to end."""
        self._written_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            # The person insists: end now; the checkpoint written before is whole.
            raise KeyboardInterrupt
        self._stop = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time; stop when asked to."""
        stop = self._stop
        if trainer.world_size > 1:
            # All ranks must agree, or those left over wait for ever.
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        step = trainer.global_step
        due = step > 0 and step % self.every_n_steps == 0
        if trainer.world_size == 1:
            due |= time.monotonic() - self._written_at > self.every_seconds
        if due or stop:
            self._write(trainer)
        if stop:
            raise Interrupted(f"Stopped at step {step} of {trainer.max_steps}.")

    def _write(self, trainer: pl.Trainer) -> None:
        part = self.folder / f"{LAST}.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.folder / LAST)
            for logger in trainer.loggers:
                logger.save()
        self._written_at = time.monotonic()

    def _restore_handlers(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ctrl-C means again what it meant before."""
        self._restore_handlers()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Ctrl-C means again what it meant before."""
        self._restore_handlers()


class StepBar(TQDMProgressBar):
    """One bar over all steps, short enough for 80 columns: what is trained, how far, and four numbers.

    Args:
        what: name of the work, shown in front.
        numbers: short name -> logged name.
        refresh_rate: steps between updates.
    """

    def __init__(self, what: str, numbers: dict[str, str], refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.what = what
        self.numbers = numbers

    def init_train_tqdm(self) -> Tqdm:
        """The bar, without the parts that do not fit."""
        bar = super().init_train_tqdm()
        bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}"
        bar.ncols = 79
        return bar

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """All of the training is one bar, and begins where the run was stopped."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description_str(self.what)
        self.train_progress_bar.initial = trainer.global_step

    def init_validation_tqdm(self) -> Tqdm:
        """No bar of its own: measuring while training is short."""
        return Tqdm(disable=True)

    def init_sanity_tqdm(self) -> Tqdm:
        """No bar of its own."""
        return Tqdm(disable=True)

    def init_predict_tqdm(self) -> Tqdm:
        """No bar of its own."""
        return Tqdm(disable=True)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The numbers beside the bar."""
        logged = trainer.callback_metrics
        return {
            short: f"{float(logged[name]):.3g}" for short, name in self.numbers.items() if name in logged
        }


class LineProgress(Callback):
    """Progress as lines, for logs and pipes, where a bar would be noise.

    Args:
        what: name of the work.
        numbers: short name -> logged name.
        write: takes a line.
        parts: lines over the whole of the work.
    """

    def __init__(
        self, what: str, numbers: dict[str, str], write: Callable[[str], None], parts: int = 10
    ) -> None:
        self.what, self.numbers, self.write, self.parts = what, numbers, write, parts

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """A line each time a further part is done."""
        total = trainer.max_steps
        step = trainer.global_step
        if not trainer.is_global_zero or step % max(1, total // self.parts):
            return
        logged = trainer.callback_metrics
        shown = ", ".join(
            f"{short} {float(logged[name]):.3g}" for short, name in self.numbers.items() if name in logged
        )
        self.write(f"{self.what}: step {step} of {total}" + (f", {shown}" if shown else ""))
