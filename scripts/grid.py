"""Tasks x methods x K x seeds, one run after another or several at once; stopped, it goes on.

    python scripts/grid.py scripts/grids/paper.yaml runs/paper
    python scripts/grid.py scripts/grids/paper.yaml runs/paper --status
    python scripts/grid.py scripts/grids/small.yaml runs/small --only cola glue=GLUE trainer=cpu
    python scripts/grid.py scripts/grids/small.yaml runs/small --tables tables/small --at-once 2

A grid is a YAML file: `common`, `tasks`, `methods` (each a list of settings of calib_ebm.train),
`per_text` (K, for methods with noise) and `seeds`. Seeds come last, so that a grid that is stopped
has whole comparisons with fewer seeds. A finished run is left alone, an interrupted one goes on, a
failed one is tried again by the next call and does not stop the others. What is missing is said at
the end, with exit code 1.

With --tables the stored predictions of each finished run (ids, labels, logits, energies; no texts)
are kept in a folder of their own, as TASK/METHOD-seedN.parquet, and the processor seconds that it
took in costs.json. A run whose table is there is left alone, so that a grid can go on elsewhere
from the tables alone, and `python -m calib_ebm.report runs=FOLDER` compares them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import yaml

PARTS = ("common", "tasks", "methods", "per_text", "seeds")
NAME = re.compile(r"\{(\w+)\}")
"""What stands for a value of the command line in a grid's settings."""


COSTS = ("tune_noise", "draw_noise", "train")
"""Stages whose processor seconds are kept."""
MADE_BY = {"tune_noise": "noise_lm", "draw_noise": "bank"}
"""Stages whose work a later run takes over, and what in run.json says which work it was."""


class Run(NamedTuple):
    """One run of a grid."""

    task: str
    method: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task}-{self.method}-seed{self.seed}"

    def folder(self, runs: Path) -> Path:
        """Where it goes."""
        return runs / self.name

    def table(self, tables: Path) -> Path:
        """Where its predictions are kept."""
        return tables / self.task / f"{self.method}-seed{self.seed}.parquet"


class BadGrid(Exception):
    """The grid cannot be read; its text is for the person."""


def read_grid(path: Path) -> dict[str, Any]:
    """The grid in a YAML file; raises `BadGrid` unless it has all parts."""
    try:
        grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadGrid(f"{path} cannot be read as a grid: {error}") from error
    absent = [part for part in PARTS if not isinstance(grid, dict) or part not in grid]
    if absent:
        raise BadGrid(f"{path} has no {', '.join(absent)}; a grid has {', '.join(PARTS)}.")
    return dict(grid)


def expand(
    grid: Mapping[str, Any], values: Mapping[str, str], only: Sequence[str] = ()
) -> Iterator[Run]:
    """The runs of a grid, in the order in which they are made.

    Args:
        grid: as `read_grid` gives it.
        values: what stands for {names} in its settings.
        only: names of tasks and methods to take; all where none of a kind is named.
    """
    unknown = set(only) - {*grid["tasks"], *grid["methods"]}
    if unknown:
        raise BadGrid(
            f"--only names {', '.join(sorted(unknown))}; there are "
            f"{', '.join([*grid['tasks'], *grid['methods']])}."
        )
    tasks = [task for task in grid["tasks"] if task in only] or [*grid["tasks"]]
    methods = [method for method in grid["methods"] if method in only] or [*grid["methods"]]
    for seed, task, method in product(grid["seeds"], tasks, methods):
        settings = [*grid["common"], *grid["tasks"][task], *grid["methods"][method]]
        noise = "energy=none" not in settings
        for per_text in grid["per_text"] if noise else (None,):
            chosen = [] if per_text is None else [f"noise.per_text={per_text}"]
            named = method if per_text is None else f"{method}-k{per_text}"
            words = (*_filled([*settings, *chosen], values), f"seed={seed}")
            yield Run(task, named, seed, words)


def _filled(settings: Sequence[str], values: Mapping[str, str]) -> Iterator[str]:
    def value(name: re.Match[str]) -> str:
        if name[1] not in values:
            raise BadGrid(f"The grid needs {name[1]}=... on the command line, for {name.string!r}.")
        return values[name[1]]

    for setting in settings:
        yield NAME.sub(value, setting)


def state(folder: Path) -> str:
    """What became of a run: complete, interrupted, failed, running (or killed), or missing."""
    try:
        return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError):
        return "missing"


def keep(run: Run, runs: Path, tables: Path) -> None:
    """Keep a finished run's predictions and its seconds; what is kept already stays."""
    table, costs = run.table(tables), tables / "costs.json"
    if table.exists():
        return
    told = json.loads((run.folder(runs) / "run.json").read_text(encoding="utf-8"))
    known = json.loads(costs.read_text(encoding="utf-8")) if costs.exists() else {}
    known[run.name] = {stage: _seconds(told, stage, runs) for stage in COSTS}
    table.parent.mkdir(parents=True, exist_ok=True)
    _at_once(costs, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())
    # Last: it says that the run is done.
    _at_once(table, (run.folder(runs) / "predictions.parquet").read_bytes())


def _at_once(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def _seconds(told: Mapping[str, Any], stage: str, runs: Path) -> float | None:
    """Of a stage, or of the run that did it first; None where there is no such stage or run."""
    record = told["stages"].get(stage, {})
    if record.get("skipped") and stage in MADE_BY:
        product = told.get(MADE_BY[stage])
        others = (_told(path) for path in sorted(runs.glob("*/run.json")))
        same = [other for other in others if product and other.get(MADE_BY[stage]) == product]
        done = [other["stages"].get(stage, {}) for other in same]
        record = next((each for each in done if not each.get("skipped", True)), record)
    known = not record.get("skipped", True) and "cpu_seconds" in record
    return round(record["cpu_seconds"], 1) if known else None


def _told(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("stages"), dict) else {}


def make(run: Run, runs: Path, further: Sequence[str]) -> bool:
    """Make a run, its output in a file beside it; whether it came to its end."""
    folder = run.folder(runs)
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "calib_ebm.train", *run.overrides, *further]
    with (runs / f"{run.name}.log").open("a", encoding="utf-8") as log:
        done = subprocess.run([*command, f"run_dir={folder}"], stdout=log, stderr=log, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    return done.returncode == 0


def make_all(runs: Sequence[Run], given: argparse.Namespace, further: Sequence[str]) -> None:
    """Make what is missing, `given.at_once` runs at a time, and keep the tables of what is there.

    Raises:
        KeyboardInterrupt: on Ctrl-C, which each run gets as well; none is begun after it.
    """
    stopped = Event()

    def one(number: int, run: Run) -> None:
        if stopped.is_set() or given.status or now(run, given) == "complete":
            return
        print(f"{number} of {len(runs)}: {run.name}", flush=True)
        try:
            if not make(run, given.runs, further):
                print(f"  failed; see {given.runs / run.name}.log", flush=True)
        except KeyboardInterrupt:
            # Here, for the main thread would be told too late: a free one begins the next at once.
            stopped.set()
            raise

    with ThreadPoolExecutor(given.at_once) as pool:
        begun = [pool.submit(one, number, run) for number, run in enumerate(runs, 1)]
        try:
            for run, work in zip(runs, begun, strict=True):
                work.result()
                # Here, one after another: costs.json is one file.
                if given.tables and state(run.folder(given.runs)) == "complete":
                    keep(run, given.runs, given.tables)
        except KeyboardInterrupt:
            stopped.set()
            raise


def main() -> int:
    """Make what is missing; 0 when the grid is whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, help="a YAML file, e.g. scripts/grids/paper.yaml")
    parser.add_argument("runs", type=Path, help="the folder for its run folders")
    parser.add_argument("--status", action="store_true", help="only say what is there")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a task or method; repeatable"
    )
    parser.add_argument("--tables", type=Path, help="a folder for the predictions alone")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("settings", nargs="*", help="name=value: for {name} of the grid, or of all")
    given = parser.parse_intermixed_args()
    if given.at_once < 1:
        parser.error(f"--at-once is {given.at_once}; a number from 1 is allowed")
    try:
        grid = read_grid(given.grid)
        values = dict(word.split("=", 1) for word in given.settings if "=" in word)
        text = given.grid.read_text(encoding="utf-8")
        names = set(NAME.findall(text))
        further = [word for word in given.settings if word.split("=", 1)[0] not in names]
        runs = list(expand(grid, values, given.only))
    except BadGrid as error:
        print(error, file=sys.stderr)
        return 2
    try:
        make_all(runs, given, further)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.", file=sys.stderr)
        return 130
    return _report({run.name: now(run, given) for run in runs})


def now(run: Run, given: argparse.Namespace) -> str:
    """What became of a run, here or where its table comes from."""
    is_kept = given.tables is not None and run.table(given.tables).exists()
    return "complete" if is_kept else state(run.folder(given.runs))


def _report(states: Mapping[str, str]) -> int:
    absent = {name: what for name, what in states.items() if what != "complete"}
    print(f"{len(states) - len(absent)} of {len(states)} runs are complete.")
    for name, what in absent.items():
        print(f"  {what:12} {name}")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
