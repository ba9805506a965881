"""Fine-tune a classifier jointly as an energy-based model, measure it, and write the report.

    python -m calib_ebm.train
    python -m calib_ebm.train task=sst2 energy=sharp_hidden
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import is_first_process, run_command, say


def train(config: dict[str, Any]) -> None:
    """Do every stage that is missing, and print the table and the folder."""
    from rich.console import Console

    from calib_ebm.learn.run import run
    from calib_ebm.report.console import summary_table

    folder = run(config, say)
    if not is_first_process():
        return
    Console(width=79 if not Console().is_terminal else None).print(summary_table(folder))
    say(f"report: {folder / 'report.html'}")
    say(f"run folder: {folder}")


if __name__ == "__main__":
    run_command("train", train)
