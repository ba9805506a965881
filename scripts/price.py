"""What calibration costs: ECE against the price of the whole training, from a grid's tables.

    python scripts/price.py scripts/tables/price --figure docs/price.svg > table.md

Prints Markdown, a row for each method of each task, and draws the front: methods that no other
method beats in both ECE and price. Prices are processor seconds (`costs.json`, written by
`scripts/grid.py --tables`), relative to plain fine-tuning on the same seeds: of the training alone,
and with tuning the noise model and drawing the noise. The gain is the share of the most that any
method takes off the baseline's ECE.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.report.comparison.differences import Combined, difference, mean_of
from calib_ebm.report.comparison.members import Member, TaskRuns, gather, resample
from calib_ebm.report.comparison.stored import TableSettings, read_stored

STAGES = ("tune_noise", "draw_noise", "train")
RESAMPLES = 1000
"""Of the texts, the same for all methods."""
ECE, NLL, ACCURACY = "test/cal/ece", "test/nll", "test/cls/acc"

Costs = Mapping[str, Mapping[str, float | None]]


class Priced(NamedTuple):
    """A method of a task."""

    task: str
    method: str
    runs: Mapping[int, Member]
    training: float
    """Processor seconds of the training, over those of plain fine-tuning."""
    whole: float
    """The same with tuning and drawing."""


def price(task: TaskRuns, costs: Costs) -> list[Priced]:
    """The methods of a task whose costs are known, the baseline first."""
    assert task.baseline is not None, "main has asked"
    found = []
    plain = task.members[task.baseline]
    for method, runs in task.members.items():
        seeds = [s for s in runs if s in plain and _known(costs, task, method, s)]
        seeds = [s for s in seeds if _known(costs, task, task.baseline, s)]
        if not seeds:
            print(f"left out, its seconds are not known: {method}", file=sys.stderr)
            continue
        base = sum(_train(costs, task, task.baseline, s) for s in seeds)
        training = sum(_train(costs, task, method, s) for s in seeds)
        noise = sum(
            costs[_name(task, method, s)].get(stage) or 0.0 for s in seeds for stage in STAGES[:2]
        )
        found.append(Priced(task.task, method, runs, training / base, (training + noise) / base))
    return found


def _name(task: TaskRuns, method: str, seed: int) -> str:
    return f"{task.task}-{method}-seed{seed}"


def _train(costs: Costs, task: TaskRuns, method: str, seed: int) -> float:
    return costs[_name(task, method, seed)]["train"] or 0.0


def _known(costs: Costs, task: TaskRuns, method: str, seed: int) -> bool:
    """Whether all that a run needed was timed: without energies there is only the training."""
    cost = costs.get(_name(task, method, seed), {})
    has_noise = task.members[method][seed].test.energy_N is not None
    return all(cost.get(stage) is not None for stage in (STAGES if has_noise else STAGES[2:]))


def front(priced: Sequence[Priced]) -> list[Priced]:
    """Methods that no other beats in both ECE and price, the cheapest first."""
    kept: list[Priced] = []
    for each in sorted(priced, key=lambda one: (one.whole, _ece(one))):
        if not kept or _ece(each) < _ece(kept[-1]):
            kept.append(each)
    return kept


def _ece(one: Priced) -> float:
    return fmean(run.values[ECE] for run in one.runs.values())


def rows(task: TaskRuns, priced: Sequence[Priced]) -> list[str]:
    """The rows of a task as Markdown."""
    assert task.baseline is not None
    plain, least = priced[0], min(_ece(one) for one in priced)
    on_front = {one.method for one in front(priced)}
    lines = []
    for one in priced:
        gain = (_ece(plain) - _ece(one)) / max(_ece(plain) - least, 1e-12)
        figures = [
            _figure(one, plain, name, digits)
            for name, digits in ((ECE, 3), (NLL, 3), (ACCURACY, 3))
        ]
        cells = (
            one.task,
            f"**{one.method}**" if one.method in on_front else one.method,
            str(len(one.runs)),
            *figures,
            f"{100 * gain:.0f}%",
            f"{one.training:.2f}",
            f"{one.whole:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _figure(one: Priced, plain: Priced, name: str, digits: int) -> str:
    mean = mean_of(one.runs, name)
    if mean is None:
        return "-"
    text = f"{mean.value:.{digits}f}"
    if one is plain:
        return text
    change: Combined | None = difference(one.runs, plain.runs, name)
    if change is None:
        return text
    return (
        f"{text} ({change.value:+.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}])"
    )


HEADER = (
    "| task | method | seeds | top-label ECE | NLL | accuracy | gain | training | with noise |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def draw(priced: Sequence[Priced], path: Path) -> None:
    """ECE against price, with the front as a line: an SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "calib_ebm"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.4), layout="constrained")
    for place, one in enumerate(sorted(priced, key=lambda one: one.whole)):
        mean = mean_of(one.runs, ECE)
        assert mean is not None
        axes.errorbar(
            one.whole,
            mean.value,
            yerr=[[mean.value - mean.low], [mean.high - mean.value]],
            fmt="o",
            color="#1f5f8b",
            ecolor="#b7c9d6",
            capsize=3,
        )
        axes.annotate(
            f"{one.method}: {mean.value:.3f} at {one.whole:.2f}",
            (one.whole, mean.value),
            # In a column, the cheapest on top: no name stands on another, no line crosses one.
            xytext=(1.02, 1 - (place + 0.5) / len(priced)),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": "#c9c9c9",
                "linewidth": 0.6,
            },
        )
    best = front(priced)
    axes.step(
        [one.whole for one in best],
        [_ece(one) for one in best],
        where="post",
        color="#c0562f",
        linewidth=1,
        zorder=0,
        label="front",
    )
    axes.legend(frameon=False, loc="upper left")
    axes.set_xlabel("price: tuning, drawing and training over plain fine-tuning")
    axes.set_ylabel("top-label ECE, 95% interval over seeds and texts")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Read, price, print; 2 for what cannot be priced."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, help="a folder that scripts/grid.py --tables wrote")
    parser.add_argument("--baseline", default="none", help="the method that is plain fine-tuning")
    parser.add_argument("--figure", type=Path, help="an SVG to draw, of the first task")
    given = parser.parse_args()
    try:
        costs = json.loads((given.tables / "costs.json").read_text(encoding="utf-8"))
        paths = sorted(given.tables.glob("*/*.parquet"))
        tasks, left_out = gather(
            [read_stored(path, TableSettings()) for path in paths], given.baseline
        )
    except (OSError, ValueError, InputError) as error:
        print(f"{given.tables} cannot be priced: {error}", file=sys.stderr)
        return 2
    for each in left_out:
        print(f"left out: {each.folder}: {each.why}", file=sys.stderr)
    print(HEADER)
    for number, task in enumerate(tasks):
        for member in task.every:
            resample(member, RESAMPLES, seed=0)
        priced = price(task, costs)
        if not priced or priced[0].method != task.baseline:
            print(f"{task.task} has no priced {given.baseline}", file=sys.stderr)
            return 2
        print("\n".join(rows(task, priced)))
        if number == 0 and given.figure is not None:
            draw(priced, given.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
