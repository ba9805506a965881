"""Table of energies against plain fine-tuning, paired by seed, from finished run folders.

    python scripts/compare_energies.py 'runs/embedded-*' > table.md

Prints Markdown: a row for each energy (and noise) with means over seeds, and the paired difference
to `none` with a 95% Student interval over seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from glob import glob
from pathlib import Path
from statistics import fmean
from typing import Any

from calib_ebm.calibration.intervals import paired_difference

COLUMNS = {
    "accuracy": "test/cls/acc",
    "top-label ECE": "test/cal/ece",
    "true calibration error": "test/cal/true",
    "NLL": "test/nll",
    "ECE, calibrated": "test_calibrated/cal/ece",
}
BASELINE = ("none", "")


def matching(pattern: str) -> list[Path]:
    """The run folders of a path, or of a pattern."""
    # Not Path.glob, which takes no pattern that begins at the root.
    names = [pattern] if Path(pattern).is_dir() else glob(pattern)  # noqa: PTH207
    found = [Path(name) for name in names]
    runs = [folder for folder in found if (folder / "run.json").is_file()]
    if not runs:
        raise SystemExit(f"{pattern} names no folder with a run.json; give run folders.")
    return runs


def read(patterns: list[str]) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """Metrics of finished runs by (energy, noise) and seed."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for folder in sorted({p for pattern in patterns for p in matching(pattern)}):
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if run["status"] != "complete":
            print(f"left out, not finished: {folder}", file=sys.stderr)
            continue
        key = (run["energy"], run["noise"] or "")
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        metrics["seconds"] = sum(s["seconds"] for s in run["stages"].values())
        metrics["train_seconds"] = run["stages"]["train"]["seconds"]
        if run["seed"] in found[key]:
            raise SystemExit(f"two runs of {key} with seed {run['seed']}: {folder}")
        found[key][run["seed"]] = metrics
    return found


def cell(
    name: str, of: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]] | None
) -> str:
    """Mean over seeds, and the paired difference to the baseline."""
    values = [m[name] for m in of.values() if m.get(name) is not None]
    if not values:
        return "-"
    text = f"{fmean(values):.3f}"
    if baseline is None:
        return text
    seeds = sorted(set(of) & set(baseline))
    if len(seeds) < 2:
        return text
    change = paired_difference([of[s][name] for s in seeds], [baseline[s][name] for s in seeds])
    return f"{text} ({change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}])"


def table(found: dict[tuple[str, str], dict[int, dict[str, Any]]]) -> str:
    """The rows as Markdown."""
    baseline = found.get(BASELINE)
    names = [
        n for n in COLUMNS if any(COLUMNS[n] in m for of in found.values() for m in of.values())
    ]
    lines = [
        "| energy | noise | seeds | "
        + " | ".join(names)
        + " | NCE accuracy | seconds of training |",
        "|---" * (len(names) + 5) + "|",
    ]
    for key, of in sorted(found.items(), key=lambda item: (item[0] != BASELINE, item[0])):
        against = None if key == BASELINE else baseline
        cells = [cell(COLUMNS[name], of, against) for name in names]
        nce = cell("nce/accuracy", of, None)
        seconds = f"{fmean(m['train_seconds'] for m in of.values()):.0f}"
        energy, noise = key
        lines.append(
            f"| {energy} | {noise or '-'} | {len(of)} | {' | '.join(cells)} | {nce} | {seconds} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="run folders, or patterns of them")
    found = read(parser.parse_args().runs)
    if not found:
        raise SystemExit("no finished run was found")
    print(table(found))


if __name__ == "__main__":
    main()
