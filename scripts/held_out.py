"""Which setting is best on the texts that were held out of the training: NLL of the fit half.

    python scripts/grid.py scripts/grids/weight.yaml runs/weight ... --tables scripts/tables/weight
    python scripts/held_out.py scripts/tables/weight

Prints Markdown: for each task and method the NLL and the accuracy, as trained, of the split "fit",
means over seeds and, in brackets, seed by seed; the lowest NLL of a task is in bold. With
task.split=train_holdout that split is a slice of the training texts, so a setting can be chosen
without a look at what is reported. All methods of a task must have the same seeds, and with a seed
the same held-out texts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from calib_ebm.errors import InputError
from calib_ebm.report.predictions import read_table


class Scored(NamedTuple):
    """A method on a task's held-out texts, a value for each seed."""

    method: str
    seeds: tuple[int, ...]
    ids: tuple[tuple[str, ...], ...]
    """Of the held-out texts."""
    nll: tuple[float, ...]
    accuracy: tuple[float, ...]


def scored(task: Path) -> list[Scored]:
    """The methods of a task.

    Raises:
        InputError: for a table without held-out texts, and for methods with other seeds or texts.
    """
    runs: dict[str, dict[int, Path]] = {}
    for path in sorted(task.glob("*-seed*.parquet")):
        method, _, seed = path.stem.rpartition("-seed")
        if seed.isdecimal():
            runs.setdefault(method, {})[int(seed)] = path
    found = []
    for method, paths in runs.items():
        ids, nll, accuracy = zip(*map(_of, paths.values()), strict=True)
        found.append(Scored(method, tuple(paths), ids, nll, accuracy))
    if len({one.seeds for one in found}) > 1:
        had = "; ".join(f"{one.method}: {', '.join(map(str, one.seeds))}" for one in found)
        raise InputError(
            f"The methods of {task} have different seeds ({had}).",
            "the same seeds for all methods of a task",
            "Make the runs that are missing, or take away those that others lack.",
        )
    if len({one.ids for one in found}) > 1:
        raise InputError(
            f"The methods of {task} were not measured on the same held-out texts.",
            "with a seed the same texts for all methods of a task",
            "Make all of a task's runs with the same data and task.holdout_fraction.",
        )
    return found


def _of(path: Path) -> tuple[tuple[str, ...], float, float]:
    """The held-out texts' ids, their mean NLL, and the share that is right."""
    table = read_table(path)
    if "fit" not in table.splits or table.folds_N is not None:
        raise InputError(
            f"{path} has no held-out texts.",
            'tables with the split "fit"',
            "Make the runs with task.split=train_holdout.",
        )
    held = table.of("fit")
    logits_NC, label_N = torch.from_numpy(held.logits_NC), torch.from_numpy(held.labels_N)
    nll = torch.nn.functional.cross_entropy(logits_NC, label_N)
    right_N = logits_NC.argmax(dim=1) == label_N
    return held.ids, float(nll), float(right_N.double().mean())


def lines(folder: Path) -> Iterator[str]:
    """The table.

    Raises:
        InputError: where there is nothing to make it of.
    """
    tasks = {path.name: scored(path) for path in sorted(folder.glob("*")) if path.is_dir()}
    if not any(tasks.values()):
        raise InputError(
            f"{folder} has no tables.",
            "a folder with TASK/METHOD-seedN.parquet",
            "Name the folder that grid.py was given with --tables.",
        )
    yield "| task | method | texts | seeds | NLL | accuracy |"
    yield "|---|---|---|---|---|---|"
    for task, methods in tasks.items():
        best = min(methods, key=lambda one: _mean(one.nll), default=None)
        for one in methods:
            shown = _shown(one.nll, 4)
            nll = f"**{shown}**" if one is best else shown
            cells = (task, one.method, f"{len(one.ids[0]):,}", str(len(one.seeds)), nll)
            yield f"| {' | '.join(cells)} | {_shown(one.accuracy, 3)} |"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _shown(values: Sequence[float], digits: int) -> str:
    words = [f"{value:.{digits}f}".removeprefix("0") for value in (_mean(values), *values)]
    return f"{words[0]} ({', '.join(words[1:])})" if len(values) > 1 else words[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 where there is nothing to make it of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tables", type=Path, help="a folder with TASK/METHOD-seedN.parquet")
    try:
        print("\n".join(lines(parser.parse_args(arguments).tables)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
