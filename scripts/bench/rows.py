"""What every part of the benchmark measures with: runs in turn, and a row for each comparison.

A machine that others use too is slower at one moment than at the next. So what is compared runs
in turn, again and again, and what is reported is the median of the ratios within a round, with
the quartiles of these ratios: rounds that were disturbed as a whole do not move it.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to measure.

    Args:
        short: small sizes and few rounds: for a test that it works and that nothing is far off.
        rounds: of everything that is compared; None leaves it to the part.
        threads: for computing, as torch has them.
        glue: a folder with the classic GLUE download, whose texts or lengths are then taken;
            None: what the part has stored.
        encoder: a folder with a pretrained encoder, for parts that can use one; None: random
            weights from a config.
        only: words, one of which a case's name must contain; empty: all cases.
    """

    short: bool = False
    rounds: int | None = None
    threads: int = 1
    glue: Path | None = None
    encoder: Path | None = None
    only: tuple[str, ...] = ()

    def takes(self, case: str) -> bool:
        """Whether a case is asked for."""
        return not self.only or any(word in case for word in self.only)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        part: of the benchmark: the name of its file.
        case: what was done, in a few words: sizes, lengths.
        ours: median of what we take, in `unit`.
        theirs: median of what is compared with.
        ratio: median over rounds: `theirs / ours` where more is better for us (a speed-up), unless
            the note says otherwise.
        low: lower quartile of the ratio over rounds.
        high: upper quartile.
        note: what `theirs` is, as a few words; rows with the same words are explained once.
        unit: of `ours` and `theirs`: s, MB, ...
        wanted: the target for the ratio, e.g. "at least 6"; empty where there is none.
        further: other figures, by name, for the JSON.
    """

    part: str
    case: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    note: str = ""
    unit: str = "s"
    wanted: str = ""
    further: Mapping[str, float] = field(default_factory=dict)


def say(line: str) -> None:
    """Tell a person who waits what is being measured; the table alone goes to the output."""
    print(line, file=sys.stderr, flush=True)


def in_turn(
    what: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each function in each round; the order is reversed in every second round.

    Args:
        what: functions by name.
        rounds: how often each is timed.
        warm_up: how often each runs before, untimed.
    """
    for _ in range(warm_up):
        for function in what.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in what}
    names = list(what)
    was_on = gc.isenabled()
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            gc.collect()
            gc.disable()  # else one function pays for what another left
            start = time.perf_counter()
            what[name]()
            seconds[name].append(time.perf_counter() - start)
            if was_on:
                gc.enable()
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile.

    >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
    (2.0, 3.0, 4.0)
    >>> quartiles([7.0])
    (7.0, 7.0, 7.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compared(
    part: str,
    case: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    note: str = "",
    unit: str = "s",
    wanted: str = "",
    inverse: bool = False,
    further: Mapping[str, float] | None = None,
) -> Row:
    """A row from what was measured in the same rounds.

    Args:
        part: see `Row`.
        case: see `Row`.
        ours: one value a round.
        theirs: one value a round.
        note: see `Row`.
        unit: see `Row`.
        wanted: see `Row`.
        inverse: the ratio is `ours / theirs`, as against a floor.
        further: see `Row`.
    """
    pairs = zip(ours, theirs, strict=True)
    low, middle, high = quartiles([a / b if inverse else b / a for a, b in pairs])
    return Row(
        part,
        case,
        statistics.median(ours),
        statistics.median(theirs),
        middle,
        low,
        high,
        note,
        unit,
        wanted,
        further or {},
    )
