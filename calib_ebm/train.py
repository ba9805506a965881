"""Fine-tune a classifier jointly as an energy-based model, measure it, and write the report.

    python -m calib_ebm.train
    python -m calib_ebm.train task=sst2 energy=sharp_hidden
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, show_report
from calib_ebm.ranks import is_first_process


def train(config: dict[str, Any]) -> None:
    """Do every stage that is missing, and print the table and the folder."""
    from calib_ebm.learn.run import run

    folder = run(config, say)
    if is_first_process():
        show_report(folder)


if __name__ == "__main__":
    run_command("train", train)
