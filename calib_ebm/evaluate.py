"""Measure a finished run again: on its own test half, or on a file of other labelled texts.

The calibrator is fitted on the run's fit half, never on what is reported.

    python -m calib_ebm.evaluate run=runs/...
    python -m calib_ebm.evaluate run=runs/... calibrator=none
    python -m calib_ebm.evaluate run=runs/... data=reviews.csv text=review
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, show_report
from calib_ebm.usage import Usage

SETTINGS = {
    "run": "the run folder, which train printed last",
    "data": "a csv, tsv, jsonl or parquet file of labelled texts; null: the run's own test half",
    "text, text_pair, label": "its columns; null: as in the run's own data, or sentence and label",
    "data_dir": "where the run's own data are now, when they have moved",
    "out": "where to write; null: evaluations/<name> in the run folder",
}


def evaluate(config: dict[str, Any]) -> None:
    """Score, calibrate, estimate, and print the table and the folder."""
    from calib_ebm.learn.evaluation import evaluate_run

    show_report(evaluate_run(config, say))


if __name__ == "__main__":
    run_command(Usage("evaluate", "evaluate", __doc__ or "", SETTINGS), evaluate)
