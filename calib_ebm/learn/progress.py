"""How far scoring is: a bar on a terminal, lines elsewhere, both with the rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from calib_ebm.learn.team import here

SECONDS = 30.0
"""Between two lines."""


@dataclass
class Tally:
    """What is done, and how fast.

    The rate is of what is done now: what an earlier command did makes nobody look fast.
    """

    total: int
    done: int = 0
    new: int = 0
    start: float | None = None

    def begin(self) -> None:
        """The clock runs from the first text that has to be scored."""
        if self.start is None:
            self.start = time.perf_counter()

    def add(self, more: int, *, new: bool) -> None:
        """Count texts that are done; `new` where they were scored now."""
        self.done += more
        self.new += more * new

    @property
    def seconds(self) -> float:
        """Since the first text."""
        return 0.0 if self.start is None else time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Texts a second; 0 before there is one."""
        return self.new / self.seconds if self.seconds else 0.0

    def words(self) -> str:
        """Rate, and when it ends."""
        if not self.rate:
            return ""
        rest = self.total - self.done
        left = f", {timedelta(seconds=round(rest / self.rate))} left" if rest else ""
        return f"{self.rate:,.0f} texts/s{left}"


class _Words(ProgressColumn):
    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def render(self, task: Task) -> Text:
        """Rate and end."""
        return Text(self.tally.words())


@contextmanager
def shown(
    what: str, tally: Tally, say: Callable[[str], None], *, stays: bool = True
) -> Iterator[Callable[[], None]]:
    """Show a tally while it grows; give a function to be called whenever it has.

    Args:
        what: is done, in a word.
        tally: of what is done.
        say: takes lines, where there is no terminal.
        stays: whether the bar is left on the terminal.
    """
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(16),
            TextColumn("{task.percentage:>3.0f}% of {task.total:,.0f}"),
            _Words(tally),
        )
        with Progress(*columns, console=Console(stderr=True), transient=not stays) as bar:
            task = bar.add_task(what, total=tally.total)
            yield lambda: bar.update(task, completed=tally.done)
        return
    last = time.perf_counter()

    def line() -> None:
        nonlocal last
        if time.perf_counter() - last >= SECONDS and tally.done < tally.total:
            last = time.perf_counter()
            said = f"{what}: {tally.done:,} of {tally.total:,}"
            say(f"{said}, {tally.words()}" if tally.rate else said)

    yield line


@contextmanager
def counting(what: str, total: int, say: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Show how far something is while it goes on; give a function that takes what is newly done.

    Of several processes the first one shows it.

    Args:
        what: is done, in a word.
        total: how many there are.
        say: takes lines, where there is no terminal.
    """
    if not here().first:
        yield lambda _: None
        return
    tally = Tally(total)
    tally.begin()
    with shown(what, tally, say, stays=False) as show:

        def add(more: int) -> None:
            tally.add(more, new=True)
            show()

        yield add
