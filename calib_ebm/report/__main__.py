"""Compare run folders: one self-contained page, and its tables as CSV, Markdown and LaTeX.

Runs of the same settings and other seeds are one method. Methods of a task are compared in pairs,
on the same texts and seeds. A folder that cannot be used is left out and named.

    python -m calib_ebm.report runs='runs/*'
    python -m calib_ebm.report runs=runs/a,runs/b out=reports/two
    python -m calib_ebm.report runs='runs/sst2-*' baseline=hidden
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from calib_ebm.command import run_command, say, say_path, show_tables
from calib_ebm.usage import Usage

SETTINGS = {
    "runs": "run folders: paths and patterns, with commas; of a folder of runs, all",
    "out": "where to write; null: reports/<a name made of runs>",
    "baseline": "the method that the others are compared with, by the name it has on the page; "
    "null: plain fine-tuning",
    "resamples": "of the texts, for the intervals",
    "seed": "of the resamples",
}
LISTED = "runs="


def report(config: dict[str, Any]) -> None:
    """Compare, write, and print a table for each task and where the page is."""
    from calib_ebm.report.comparison.console import task_table
    from calib_ebm.report.comparison.page import write_comparison

    runs, out, baseline = config["runs"], config["out"], config["baseline"]
    path, comparison = write_comparison(
        str(runs) if not isinstance(runs, list) else [str(one) for one in runs],
        None if out is None else str(out),
        baseline=None if baseline is None else str(baseline),
        resamples=int(config["resamples"]),
        seed=int(config["seed"]),
    )
    show_tables([task_table(task) for task in comparison.tasks])
    for each in comparison.left_out:
        say(f"left out: {each.folder}: {each.why}")
    say(f"tables: {path.parent / 'tables'}")
    say("report:")
    say_path(path)


def as_one_value(words: Sequence[str]) -> list[str]:
    """The words of the command line, the list of runs in quotes: its commas choose no sweep.

    >>> as_one_value(["runs=a,b", "seed=1", "runs=[a,b]"])
    ['runs="a,b"', 'seed=1', 'runs=[a,b]']
    """
    quoted = []
    for word in words:
        value = word.removeprefix(LISTED)
        if word.startswith(LISTED) and value[:1] not in {"", "'", '"', "["}:
            word = LISTED + '"' + value.replace('"', '\\"') + '"'
        quoted.append(word)
    return quoted


if __name__ == "__main__":
    sys.argv[1:] = as_one_value(sys.argv[1:])
    run_command(Usage("report", "report", __doc__ or "", SETTINGS), report)
