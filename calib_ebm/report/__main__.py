"""Compare runs and stored tables: one self-contained page, and its tables as CSV, Markdown, LaTeX.

Runs of the same settings and other seeds are one method. Methods of a task are compared in pairs,
on the same texts and seeds. Tables of predictions from anywhere need no model: of
results/sst2/hidden-seed1.csv the task is sst2, the method hidden, the seed 1. What cannot be used
is left out and named.

    python -m calib_ebm.report runs='runs/*'
    python -m calib_ebm.report runs=runs/a,runs/b out=reports/two
    python -m calib_ebm.report runs='runs/sst2-*' baseline=hidden
    python -m calib_ebm.report runs=results probs='p_*' label=truth id=key
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from calib_ebm.command import run_command, say, say_path, show_tables
from calib_ebm.usage import Usage

if TYPE_CHECKING:
    from calib_ebm.report.comparison.stored import TableSettings

SETTINGS = {
    "runs": "run folders and tables (csv, tsv, jsonl, parquet): paths and patterns, with commas; "
    "of a folder of either, all",
    "out": "where to write; null: reports/<a name made of runs>",
    "baseline": "the method that the others are compared with, by the name it has on the page; "
    "null: plain fine-tuning, or the table called none, baseline or plain",
    "resamples": "of the texts, for the intervals",
    "seed": "of the resamples",
    "probs, logits, labels": "columns of tables' probabilities or logits, one for each class, and "
    "names of the classes; null: those that begin with prob or logit",
    "id, label, split, energy": "further columns; null: those of these names, where there are such",
    "folds": "report all rows of tables without splits, each of so many folds calibrated by the "
    "others; null: half of the rows",
}
LISTED = "runs="
LISTS = ("probs", "logits", "labels")


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
        tables=_table_settings(config),
    )
    show_tables([task_table(task) for task in comparison.tasks])
    for each in comparison.left_out:
        say(f"left out: {each.folder}: {each.why}")
    say(f"tables: {path.parent / 'tables'}")
    say("report:")
    say_path(path)


def _table_settings(config: dict[str, Any]) -> TableSettings:
    from calib_ebm.report.comparison.find import split_patterns
    from calib_ebm.report.comparison.stored import TableSettings
    from calib_ebm.report.foreign import TableColumns

    columns = {
        name: None if config[name] is None else str(config[name])
        for name in ("id", "label", "split", "energy")
    }
    several = {name: config[name] or () for name in LISTS}
    several = {
        name: split_patterns(each) if isinstance(each, str) else tuple(map(str, each))
        for name, each in several.items()
    }
    return TableSettings(
        TableColumns(probs=several["probs"], logits=several["logits"], **columns),
        labels=several["labels"],
        folds=config["folds"],
    )


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
    run_command(Usage("report", "report", __doc__ or "", SETTINGS, lists=LISTS), report)
