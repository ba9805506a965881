"""Is it only slower learning? Plain fine-tuning, stopped where it is as good as each method's end.

    python scripts/at_equal.py runs/small cola --metric val/cls/mcc

A method that learns the labels more slowly is also less sure of itself. So each method's last
measurement is held against the moment of the baseline's own training at which the baseline was as
good: what is left between the two is not bought by learning less. Reads history.csv of runs as
`scripts/grid.py` names them; means over the seeds that have both; between two measurements of the
baseline the moment is interpolated, at the first crossing. Stopping the baseline there would need
to know the moment beforehand: as a rival it is given too much, which makes this a strict control.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

ECE, NLL = "val/cal/ece", "val/nll"


class Course(NamedTuple):
    """How a method fared along its training, means over seeds."""

    step_P: np.ndarray
    metric_P: np.ndarray
    ece_P: np.ndarray
    nll_P: np.ndarray


class Moment(NamedTuple):
    """Of a training."""

    step: float
    metric: float
    ece: float
    nll: float


def read_measurements(history: Path, metric: str) -> dict[int, tuple[float, float, float]]:
    """Step -> metric, ECE and NLL of a run's measurements while it was trained."""
    with history.open(encoding="utf-8", newline="") as lines:
        return {
            int(float(row["step"])): (float(row[metric]), float(row[ECE]), float(row[NLL]))
            for row in csv.DictReader(lines)
            if row.get(ECE) and row.get(metric)
        }


def is_complete(run: Path) -> bool:
    """Whether a run came to its end."""
    try:
        return bool(json.loads((run / "run.json").read_text())["status"] == "complete")
    except (OSError, ValueError, KeyError):
        return False


def courses(runs: Path, task: str, metric: str, seeds: Sequence[int] | None) -> dict[str, Course]:
    """The course of each method of a task; steps that all of its seeds have."""
    name = re.compile(rf"{re.escape(task)}-(?P<method>.+)-seed(?P<seed>\d+)")
    found: dict[str, list[dict[int, tuple[float, float, float]]]] = {}
    for history in sorted(runs.glob(f"{task}-*/history.csv")):
        parts = name.fullmatch(history.parent.name)
        if not parts or not is_complete(history.parent):
            continue
        measured = read_measurements(history, metric)
        if measured and (seeds is None or int(parts["seed"]) in seeds):
            found.setdefault(parts["method"], []).append(measured)
    mean = {}
    for method, of_seeds in found.items():
        steps = sorted(set.intersection(*({*each} for each in of_seeds)))
        values_P3 = np.mean([[each[step] for step in steps] for each in of_seeds], axis=0)
        mean[method] = Course(np.asarray(steps, dtype=float), *values_P3.T)
    return mean


def last(course: Course) -> Moment:
    """The end of a training."""
    return Moment(*(float(values[-1]) for values in course))


def first_as_good(course: Course, metric: float) -> Moment | None:
    """The first moment at which a training was as good as `metric`; None where it never was.

    >>> grid = np.asarray([0.0, 10.0, 20.0])
    >>> first_as_good(Course(grid, grid / 20, grid / 40, 1 + grid), 0.75)
    Moment(step=15.0, metric=0.75, ece=0.375, nll=16.0)
    """
    reached = np.flatnonzero(course.metric_P >= metric)
    if not len(reached):
        return None
    after = int(reached[0])
    if after == 0:
        return Moment(*(float(values[0]) for values in course))
    before = after - 1
    low, high = course.metric_P[before], course.metric_P[after]
    part = (metric - low) / (high - low)
    return Moment(*(float(v[before] + part * (v[after] - v[before])) for v in course))


def table(found: dict[str, Course], baseline: str) -> str:
    """Markdown: each method's end beside the baseline where it was as good, and its end."""
    rows = [
        "| method | metric | ECE | NLL | baseline as good at | its ECE there | its NLL there |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, course in found.items():
        end, plain = last(course), first_as_good(found[baseline], last(course).metric)
        there = ("-", "-", "-")
        if plain is not None:
            there = (f"{plain.step:.0f}", f"{plain.ece:.3f}", f"{plain.nll:.3f}")
        numbers = (f"{end.metric:.3f}", f"{end.ece:.3f}", f"{end.nll:.3f}", *there)
        rows.append(f"| {method} | {' | '.join(numbers)} |")
    return "\n".join(rows)


def main() -> int:
    """Print the table; 2 where there is no baseline."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of a grid's runs")
    parser.add_argument("task", help="the beginning of their names")
    parser.add_argument("--metric", default="val/cls/acc", help="a column of history.csv")
    parser.add_argument("--baseline", default="none", help="the method of plain fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these")
    given = parser.parse_args()
    found = courses(given.runs, given.task, given.metric, given.seeds)
    if given.baseline not in found:
        print(
            f"{given.runs} has no run of {given.task} with method {given.baseline} that measured "
            f"{given.metric}; there are {', '.join(found) or 'none'}.",
            file=sys.stderr,
        )
        return 2
    print(table(found, given.baseline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
