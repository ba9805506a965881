"""What happens around the training: checkpoints, Ctrl-C, the progress bar."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from calib_ebm.errors import Interrupted
from calib_ebm.learn.checkpoints import BEFORE, LAST, StraightToDisk, is_whole

WIDEST_BAR = 100
"""Columns; a longer bar shows nothing more."""
WRITING = 0.05
"""Share of a training's time that writing checkpoints may take where nobody says how many there are
(one process)."""


class KeepLast(Callback):
    """Writes a checkpoint, `last.ckpt`, every so often; Ctrl-C writes it and stops.

    A checkpoint is always written at the start of a step, when all of the step before, its
    validation too, is done: what is resumed from it repeats nothing and leaves nothing out. The
    file is put in place atomically and holds plain values and tensors only. The one before is
    kept, should a disk damage the last.

    Args:
        folder: where the checkpoint is kept.
        every_n_steps: distance between checkpoints in steps.
        every_seconds: and in seconds, whichever comes first (one process; ranks keep to steps).
        share: of the time, above 0, that writing may take (one process); a step at which it would
            take more is passed over. None: whatever it takes.
    """

    def __init__(
        self,
        folder: Path,
        every_n_steps: int,
        every_seconds: float = 300.0,
        share: float | None = None,
    ) -> None:
        self.folder = folder
        self.every_n_steps = max(1, every_n_steps)
        self.every_seconds = every_seconds
        self.share = share
        self._stop = False
        self._written = False
        self._written_at = time.monotonic()
        self._took = 0.0
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have checkpoints written in our way."""
        trainer.strategy.checkpoint_io = StraightToDisk(self._make_room)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for Ctrl-C and for a scheduler's request to end.

        Not before: Lightning sets handlers of its own, of which that for SIGTERM would end the
        training without a checkpoint, and at the end puts back those that it found.
        """
        self._stop = False
        self._written_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            # The person insists: end now; the checkpoint written before is whole. Not a
            # KeyboardInterrupt, at which Lightning leaves the process.
            raise Interrupted("Stopped at once.")
        self._stop = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time; stop when asked to."""
        # Lightning counts one too many after a checkpoint written at the start of a step, and
        # would log other steps than those of an undisturbed training. One batch is one step here.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        stop = self._asked(trainer)
        step = trainer.global_step
        due = step > 0 and step % self.every_n_steps == 0
        if trainer.world_size == 1:
            since = time.monotonic() - self._written_at
            due = (due and since >= self._pause()) or since > max(self.every_seconds, self._pause())
        if due or stop:
            self._write(trainer)
        if stop:
            raise Interrupted(f"Stopped at step {step} of {trainer.max_steps}.")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ctrl-C means again what it meant before; it stops here if it came in the last step."""
        # Before Lightning's own handlers go, which put back what they found.
        self._restore_handlers()
        if self._asked(trainer):
            self._write(trainer)
            raise Interrupted("Stopped when the last step was done.")

    def _asked(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self._stop
        # All ranks must agree, or those left over wait for ever.
        return bool(trainer.strategy.reduce_boolean_decision(self._stop, all=False))

    def _pause(self) -> float:
        """Seconds from one checkpoint to the next at least, as the last took to be written."""
        return 0.0 if self.share is None else self._took * (1 / self.share - 1)

    def _make_room(self) -> None:
        """Before there are three checkpoints: a disk with room for two needs none for three.

        Called when what shall be written is known to be fit for it.
        """
        if self._written:  # so that the last is our own
            (self.folder / BEFORE).unlink(missing_ok=True)

    def _write(self, trainer: pl.Trainer) -> None:
        began = time.monotonic()
        part, last, before = (self.folder / name for name in (f"{LAST}.part", LAST, BEFORE))
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            # Before the checkpoint is in place: its steps' rows would else be missing after a kill.
            for logger in trainer.loggers:
                logger.save()
            if self._written or is_whole(last):
                last.replace(before)
            part.replace(last)
            self._written = True
        self._written_at = time.monotonic()
        self._took = self._written_at - began

    def _restore_handlers(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Ctrl-C means again what it meant before.

        Of several processes one may leave first, at which the others fail in what they share: that
        too is the stop that was asked for.
        """
        self._restore_handlers()
        if self._stop and trainer.world_size > 1 and not isinstance(exception, Interrupted):
            raise Interrupted("Stopped.") from exception


def numbers_text(numbers: Mapping[str, str], logged: Mapping[str, Any], between: str) -> str:
    """What was logged of some numbers, short and of much the same width at each step.

    Args:
        numbers: short name -> logged name; errors and accuracies are shown as percentages.
        logged: logged name -> value.
        between: stands between two of them.

    >>> numbers_text({"ce": "loss/ce", "ece": "cal/ece"}, {"loss/ce": 0.5, "cal/ece": 0.0812}, " ")
    'ce 0.50 ece 8.1%'
    >>> numbers_text({"ce": "loss/ce", "gap": "energy/gap"}, {"energy/gap": 1234.567}, ", ")
    'gap 1235'
    """
    shown = []
    for short, name in numbers.items():
        if name not in logged:
            continue
        value = float(logged[name])
        if name.endswith(("/ece", "/acc", "/accuracy")):
            shown.append(f"{short} {value:.1%}")
        else:
            shown.append(f"{short} {value:z.2f}" if abs(value) < 100 else f"{short} {value:.4g}")
    return between.join(shown)


class StepBar(ProgressBar):
    """One bar over all steps on stderr: what is trained, how far, how long still, some numbers.

    It fits the terminal with room for the `^C` that the terminal itself writes behind it, begins
    where a resumed training stands, and has ended when an error is said.

    Args:
        what: name of the work, shown in front.
        numbers: short name -> logged name.
        refresh_rate: steps between updates.
    """

    def __init__(self, what: str, numbers: dict[str, str], refresh_rate: int = 5) -> None:
        super().__init__()
        self.what = what
        self.numbers = numbers
        self.refresh_rate = refresh_rate
        self._enabled = True
        self._bar: Tqdm | None = None

    def disable(self) -> None:
        """Show nothing; Lightning asks for it on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, where the training begins."""
        if not self._enabled:
            return
        self._bar = Tqdm(
            desc=self.what,
            total=trainer.max_steps,
            initial=trainer.global_step,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left"
            "{postfix}",
            ncols=min(shutil.get_terminal_size().columns, WIDEST_BAR) - 3,
            file=sys.stderr,
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Show how far it is, every few steps."""
        if trainer.global_step % self.refresh_rate == 0:
            self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            shown = numbers_text(self.numbers, trainer.callback_metrics, " ")
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.n = trainer.global_step
            self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last step, and end the line."""
        self._show(trainer)
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the line; what is said of the exception begins a new one."""
        self._show(trainer)
        self._close()


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
        """A line each time a further part is done, and at the end."""
        total, step = trainer.max_steps, trainer.global_step
        part_done = step * self.parts // total > (step - 1) * self.parts // total
        if trainer.is_global_zero and part_done:
            shown = numbers_text(self.numbers, trainer.callback_metrics, ", ")
            self.write(f"{self.what}: step {step} of {total}" + (f", {shown}" if shown else ""))
