"""Measure what we do against what others would do, side by side, as ratios.

    python scripts/bench.py                           # everything, in a quarter of an hour or more
    python scripts/bench.py --part step --threads 1   # one part; --part may be given several times
    python scripts/bench.py --short                   # small sizes: whether it works at all
    python scripts/bench.py --glue GLUE --json bench.json

A part is a file of scripts/bench/ with `measure(options) -> Iterable[Row]` (rows.py). What is
compared runs in turn; a ratio is the median over rounds, with its quartiles. A row is said, and
written, when it is there; the part's table comes at its end. A part that fails is named, what it
had measured is kept, the others are measured all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.rows import Options, Row, say

PARTS = {
    "step": "the joint step, against the reference's recipe and against the bare tokens",
    "gpu": "the joint step on a GPU, where there is one",
    "noise": "drawing noise, against generate of transformers",
    "scoring": "scoring texts, against the text-classification pipeline of transformers",
    "startup": "the time until a command does something",
}
LIBRARIES = ("torch", "transformers", "pytorch-lightning", "torchmetrics", "numpy", "pyarrow")
WIDTH = 80


def main() -> int:
    """Measure, print and write; 0 when every part came through."""
    args = _arguments()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    options = Options(
        args.short, args.rounds, torch.get_num_threads(), args.glue, args.encoder, tuple(args.only)
    )
    facts = _facts(options)
    print(_machine_line(facts))
    rows: list[Row] = []
    failed: dict[str, str] = {}

    def keep(so_far: Sequence[Row], whole: bool = False) -> None:
        every = [asdict(row) for row in so_far]
        if args.json:
            _write(args.json, {**facts, "complete": whole, "rows": every, "failed": failed})

    for name in args.part or PARTS:
        print(f"\n{name}: {PARTS[name]}", flush=True)
        start = time.perf_counter()
        measured: list[Row] = []
        for row in _measured(name, options, failed):
            measured.append(row)
            say(_line(row))
            keep([*rows, *measured])
        rows += measured
        if measured:
            print(table(measured))
            print(f"measured in {time.perf_counter() - start:.0f} s", flush=True)
    keep(rows, whole=not failed)
    for name, why in failed.items():
        print(f"\n{name} failed:\n{why}", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="one of them (again: more)")
    parser.add_argument("--short", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--rounds", type=int, help="of everything that is compared")
    parser.add_argument("--threads", type=int, help="for computing (else: as torch chooses)")
    parser.add_argument("--glue", type=Path, metavar="FOLDER", help="with SST-2/, MRPC/, RTE/ ...")
    parser.add_argument("--encoder", type=Path, metavar="FOLDER", help="a pretrained encoder")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="cases whose name has this word"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    args = parser.parse_args()
    for name in ("glue", "encoder"):
        folder = getattr(args, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} is {folder}, which is no folder")
    for name in ("rounds", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; it is a whole number from 1")
    return args


def _measured(name: str, options: Options, failed: dict[str, str]) -> Iterator[Row]:
    """The rows of a part as they come; the reason in `failed`, or printed, where it has none."""
    module = f"bench.{name}"
    try:
        part = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            failed[name] = traceback.format_exc(limit=-3)
        else:
            print(f"there is no scripts/bench/{name}.py here; nothing was measured")
        return
    try:
        yield from part.measure(options)
    except Exception:
        failed[name] = traceback.format_exc(limit=-3)
        print("failed; the reason is below")


def _line(row: Row) -> str:
    """A row in one line, for a person who waits."""
    what = f" ({row.note.split(';')[0]})" if row.note else ""
    said = f"{row.case}: {row.ratio:.3g} [{row.low:.3g}, {row.high:.3g}]{what}"
    return "  " + textwrap.shorten(said, WIDTH - 2, placeholder=" ...")


def table(rows: Sequence[Row]) -> str:
    """The rows of a part as a person reads them, in 80 columns.

    Rows with the same note stand together under it, in the order in which it came up.
    """
    lines: list[str] = []
    note: str | None = None
    notes = list(dict.fromkeys(row.note for row in rows))
    for row in sorted(rows, key=lambda row: notes.index(row.note)):
        if row.note != note:
            note = row.note
            lines += textwrap.wrap(f"- {note}" if note else "-", WIDTH, subsequent_indent="  ")
            lines.append(f"  {'':32}{'ours':>9} {'theirs':>9}   ratio [quartiles]")
        spread = f"{row.ratio:.3g} [{row.low:.3g}, {row.high:.3g}]"
        figures = f"{_figure(row.ours, row.unit):>9} {_figure(row.theirs, row.unit):>9}"
        wanted = f" {row.wanted}" if row.wanted else ""
        line = f"  {row.case:<32}{figures}   {spread:<20}"
        if len(row.case) > 32:
            lines.append(f"  {row.case}")
            line = f"  {'':32}{figures}   {spread:<20}"
        lines.append(line.rstrip())
        if wanted:
            lines.append(f"    wanted:{wanted}")
    return "\n".join(lines)


def _figure(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}".strip()


def _facts(options: Options) -> dict[str, Any]:
    import torch

    installed = {"python": platform.python_version()}
    for library in ("calib-ebm", *LIBRARIES):
        try:
            installed[library] = version(library)
        except PackageNotFoundError:
            installed[library] = "not installed"
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": {
            "processor": _processor(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "threads": options.threads,
        "versions": installed,
        "short": options.short,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _machine_line(facts: dict[str, Any]) -> str:
    machine, of = facts["machine"], facts["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {facts['threads']} threads; "
        f"Python {of['python']}, torch {of['torch']}"
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
