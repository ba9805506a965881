"""Kill a short run at random moments of every stage, go on, and compare with an undisturbed one.

    python scripts/kills.py                           # 4 lives of 5 kills: some minutes
    python scripts/kills.py --lives 20                # 20 kills a stage
    python scripts/kills.py --lives 1 --stages training --json kills.json

A life is one run and its evaluation. In each of its stages (tuning, drawing, training, measuring,
evaluating) the process is sent SIGKILL once, at a moment drawn from the time that the stage took
when nothing disturbed it; then the same command is given again. What comes out is compared by
value: metrics.json, history.csv and predictions.parquet of the run and of its evaluation. A kill is
counted under the stage that it hit, which a busy machine may have made another. The exit code is 1
when a number differs, or a command that was to go on failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = (
    "task.train_size=400",
    "task.dev_size=300",
    "encoder.small.layers=1",
    "encoder.small.width=32",
    "encoder.small.heads=2",
    "noise.small.layers=1",
    "noise.small.width=32",
    "noise.small.heads=2",
    "noise.tune.max_steps=300",
    "noise.tune.epochs=20",
    "noise.per_text=8",
    "trainer=cpu",
    "trainer.max_steps=150",
    "trainer.log_every=5",
    "optim.batch_size=16",
)
STAGES = ("tuning", "drawing", "training", "measuring", "evaluating")
NAMES = {"tune_noise": "tuning", "draw_noise": "drawing", "train": "training"}
NAMES |= {"load": "loading", "measure": "measuring", "report": "measuring"}
"""Stages as run.json calls them."""
PATIENCE = 600.0
"""Seconds after which a command is taken for one that hangs."""


@dataclass
class Place:
    """Where a life takes place."""

    home: Path

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.home / "run"

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation."""
        return self.home / "evaluation"

    def command(self, stage: str) -> list[str]:
        """The command that does a stage, and whatever of the stages before is missing."""
        if stage == "evaluating":
            words = [f"run={self.run}", f"out={self.evaluation}", "corrupt=tokens:0.1"]
            return [sys.executable, "-m", "calib_ebm.evaluate", *words]
        places = [f"run_dir={self.run}", f"cache_dir={self.home / 'cache'}"]
        return [sys.executable, "-m", "calib_ebm.train", *SETTINGS, *places]

    def start(self, stage: str) -> subprocess.Popen[bytes]:
        """Give the command; what it says is added to a file."""
        with (self.home / "said.txt").open("ab") as said:
            return subprocess.Popen(
                self.command(stage), cwd=self.home, stdout=said, stderr=said, env={**os.environ}
            )

    def do(self, stage: str) -> float:
        """Give the command and wait for its end; the seconds that it took."""
        start = time.monotonic()
        code = self.start(stage).wait(PATIENCE)
        if code:
            said = (self.home / "said.txt").read_text(errors="replace").splitlines()[-8:]
            raise SystemExit(f"{stage} ended with code {code} in {self.home}:\n" + "\n".join(said))
        return time.monotonic() - start

    def begun(self, stage: str) -> bool:
        """Whether the stage has begun, as its files tell."""
        cache, tuned = self.home / "cache", bool(self._whole("noise_lm"))
        signs: dict[str, Callable[[], bool]] = {
            "tuning": lambda: any(cache.glob("noise_lm/*.part")),
            "drawing": lambda: tuned and any(cache.glob("noise/*.part")),
            "training": lambda: (self.run / "checkpoints").exists(),
            "measuring": lambda: (self.run / "model").exists(),
            "evaluating": lambda: True,
        }
        return signs[stage]()

    def _whole(self, kind: str) -> list[Path]:
        found = (self.home / "cache" / kind).glob("*")
        return [path for path in found if path.suffix not in (".part", ".lock")]

    def stage(self) -> str:
        """The stage that `train` is in: the first that run.json does not know as done."""
        try:
            facts = json.loads((self.run / "run.json").read_text())
        except (OSError, ValueError):
            return "loading"
        done = facts.get("stages", {})
        return next((NAMES[name] for name in NAMES_IN_ORDER if name not in done), "the end")


NAMES_IN_ORDER = ("load", "tune_noise", "draw_noise", "train", "measure", "report")


@dataclass
class Result:
    """What was found in all lives together.

    Attributes:
        kills: how many hit each stage.
        late: how often the command had ended before the kill.
        differences: of each file, of each life.
        left: names of files that an undisturbed life does not leave.
    """

    kills: Counter[str] = field(default_factory=Counter)
    late: int = 0
    lives: int = 0
    differences: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


# -------------------------------------------------------------------------------------- comparing


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """What differs by value between two folders that a run or an evaluation has written."""
    for name, read in (
        ("metrics.json", _metrics),
        ("history.csv", _history),
        ("predictions.parquet", _columns),
    ):
        if not (theirs / name).exists() and not (ours / name).exists():
            continue
        if not (ours / name).exists():
            yield f"{name} is not there"
            continue
        a, b = read(ours / name), read(theirs / name)
        keys = [key for key in {*a, *b} if a.get(key) != b.get(key)]
        if keys:
            shown = ", ".join(f"{k}: {a.get(k)} / {b.get(k)}" for k in sorted(keys)[:2])[:200]
            yield f"{name}: {len(keys)} of {len({*a, *b})} differ ({shown})"


def _metrics(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _history(path: Path) -> dict[str, Any]:
    with path.open(newline="") as file:
        return {row["step"]: row for row in csv.DictReader(file)}


def _columns(path: Path) -> dict[str, Any]:
    from pyarrow import parquet

    return dict(parquet.read_table(path).to_pydict())


def names_within(folder: Path) -> set[str]:
    """Names of all files, digests and numbers of processes aside."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------- killing


def kill_within(place: Place, stage: str, seconds: float, chance: random.Random) -> str | None:
    """Start the stage's command and kill it within the stage; the stage that was hit.

    None when it had ended before.
    """
    process = place.start(stage)
    until = time.monotonic() + PATIENCE
    while not place.begun(stage):
        if process.poll() is not None or time.monotonic() > until:
            break
        time.sleep(0.01)
    try:
        process.wait(chance.uniform(0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code != -signal.SIGKILL:
        if code:
            raise SystemExit(f"{stage} ended with code {code}; see {place.home / 'said.txt'}")
        return None
    return "evaluating" if stage == "evaluating" else place.stage()


def live(
    place: Place, stages: Sequence[str], seconds: dict[str, float], chance: random.Random
) -> tuple[list[str], int]:
    """One life: a kill in each stage, then the end of the run, then its evaluation; who was hit."""
    hit, late = [], 0
    for stage in STAGES:
        if stage == "evaluating":
            place.do("measuring")  # whatever is missing of the run
        if stage in stages:
            found = kill_within(place, stage, seconds[stage], chance)
            if found is None:
                late += 1
            else:
                hit.append(found)
    place.do("evaluating")
    return hit, late


def stage_seconds(place: Place, evaluating: float) -> dict[str, float]:
    """How long each stage took when nothing disturbed it."""
    done = json.loads((place.run / "run.json").read_text())["stages"]
    seconds = {NAMES[name]: 0.0 for name in NAMES_IN_ORDER}
    for name in NAMES_IN_ORDER:
        seconds[NAMES[name]] += done[name]["seconds"]
    return seconds | {"evaluating": evaluating}


def main() -> int:
    """Live, print the table, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lives", type=int, default=4, help="each with a kill in every stage")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        result = _lives(args, args.folder or Path(temporary))
    print("\n".join(table(result, args.stages)))
    if args.json:
        args.json.write_text(json.dumps(vars(result), indent=1) + "\n")
    return 1 if result.differences else 0


def _lives(args: argparse.Namespace, home: Path) -> Result:
    chance, result = random.Random(args.seed), Result()  # noqa: S311  (moments, no secrets)
    undisturbed = Place(home / "undisturbed")
    undisturbed.home.mkdir(parents=True)
    undisturbed.do("measuring")
    seconds = stage_seconds(undisturbed, undisturbed.do("evaluating"))
    print("undisturbed:", ", ".join(f"{s} {seconds[s]:.1f} s" for s in STAGES), flush=True)
    usual = names_within(undisturbed.home)
    for number in range(args.lives):
        place = Place(home / f"life-{number}")
        place.home.mkdir()
        hit, late = live(place, args.stages, seconds, chance)
        result.lives += 1
        result.late += late
        result.kills.update(hit)
        for ours, theirs in (
            (place.run, undisturbed.run),
            (place.evaluation, undisturbed.evaluation),
        ):
            found = [f"life {number}, {ours.name}: {what}" for what in differences(ours, theirs)]
            result.differences += found
        result.left.update(_unusual(names_within(place.home) - usual))
        print(f"life {number}: killed in {', '.join(hit)}", *result.differences[-3:], flush=True)
        shutil.rmtree(place.home)
    return result


def _unusual(names: set[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("events.out"))


def table(result: Result, stages: Sequence[str]) -> list[str]:
    """The result as a person reads it."""
    rows = sorted({*stages, *result.kills}, key=lambda s: (s not in STAGES, s))
    ordered = [s for s in STAGES if s in rows] + [s for s in rows if s not in STAGES]
    lines = ["", "| stage | kills |", "|---|---|"]
    lines += [f"| {stage} | {result.kills[stage]} |" for stage in ordered]
    lines += [f"| all | {result.kills.total()} |", ""]
    lines.append(
        f"{result.lives} lives, {len(result.differences)} differences by value to the undisturbed "
        f"run; {result.late} kills came too late."
    )
    if result.left:
        left = ", ".join(f"{name} ({count})" for name, count in result.left.items())
        lines.append(f"Left behind beside what an undisturbed life leaves: {left}.")
    return lines + result.differences


if __name__ == "__main__":
    sys.exit(main())
