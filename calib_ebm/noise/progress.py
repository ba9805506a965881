"""How far drawing is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f} samples/s")


@contextmanager
def drawing_progress(
    what: str, total: int, say: Callable[[str], None], parts: int = 10
) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many more samples are done.

    Args:
        what: shown in front.
        total: samples.
        say: takes lines, where there is no terminal.
        parts: lines over the whole of the work.
    """
    console = Console(stderr=True)
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.percentage:.0f}%"),
        )
        with Progress(*columns, _Rate(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
        return
    done, start = 0, time.perf_counter()

    def advance(more: int) -> None:
        nonlocal done
        before, done = done, done + more
        if done * parts // total > before * parts // total:
            rate = done / max(1e-9, time.perf_counter() - start)
            say(f"{what}: {done} of {total}, {rate:.0f} samples/s")

    yield advance
