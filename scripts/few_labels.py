"""What temperatures on few labels come to, with and without a prior, from stored predictions.

    python scripts/few_labels.py scripts/tables/small none hidden-k1 sharp_hidden-k1 > table.md

Prints Markdown: ECE and NLL, means over draws and seeds, for each of the methods named and each
task, by the number of labels (`calib_ebm.calibration.few_labels`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from calib_ebm.calibration.few_labels import after_few_labels, sizes_for
from calib_ebm.errors import InputError
from calib_ebm.report.predictions import Predictions, read_table

PRIORS = (0.0, 1.0, 4.0, 16.0)
MOST = 200
DRAWS = 100


def rows(
    task: str, method: str, runs: Sequence[Predictions], priors: Sequence[float]
) -> Iterator[list[str]]:
    """A row for each prior."""
    for prior in priors:
        found = []
        for run in runs:
            sizes = tuple(size for size in sizes_for(len(run.ids)) if size <= MOST)
            labels_N, logits_NC = torch.from_numpy(run.labels_N), torch.from_numpy(run.logits_NC)
            found.append(
                after_few_labels(logits_NC, labels_N, (0, *sizes), draws=DRAWS, prior=prior)
            )
        ece_S, nll_S = (
            torch.stack([value.mean(dim=1) for value in each]).mean(dim=0).tolist()
            for each in ([one.ece_SR for one in found], [one.nll_SR for one in found])
        )
        cells = [f"{_short(e)} / {_short(n)}" for e, n in zip(ece_S, nll_S, strict=True)]
        yield [task, method, f"{prior:g}", *cells, *["-"] * (1 + len(_sizes()) - len(cells))]


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _sizes() -> tuple[int, ...]:
    return tuple(size for size in sizes_for(10**9) if size <= MOST)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 where there is nothing to make it of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("tables", type=Path, help="a folder with TASK/METHOD-seedN.parquet")
    parser.add_argument("methods", nargs="+", help="as the files are called")
    asked = parser.parse_args(arguments)
    head = ["task", "method", "prior", "no label", *(f"{size} labels" for size in _sizes())]
    lines = [head, ["---"] * len(head)]
    try:
        for task in sorted(path for path in asked.tables.glob("*") if path.is_dir()):
            for method in asked.methods:
                paths = sorted(task.glob(f"{method}-seed*.parquet"))
                if paths:
                    runs = [read_table(path).of("test") for path in paths]
                    lines += rows(task.name, method, runs, PRIORS)
        if len(lines) == 2:
            raise InputError(
                f"{asked.tables} has no tables of {', '.join(asked.methods)}.",
                "a folder with TASK/METHOD-seedN.parquet",
                "Name methods as their files are called.",
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
