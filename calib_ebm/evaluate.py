"""Measure a finished run again, on its own test half or on a file of other labelled texts.

    python -m calib_ebm.evaluate run=runs/... data=reviews.jsonl
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, show_report


def evaluate(config: dict[str, Any]) -> None:
    """Score, calibrate, estimate, and print the table and the folder."""
    from calib_ebm.learn.evaluation import evaluate_run

    show_report(evaluate_run(config, say))


if __name__ == "__main__":
    run_command("evaluate", evaluate)
