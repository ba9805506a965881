"""Fine-tune a text classifier jointly as an energy-based model, measure it, write the report.

Every stage that is missing is done: tune the noise model, draw the noise, train, measure, report.
What is there already is taken. After Ctrl-C the same command goes on where it was.

    python -m calib_ebm.train
    python -m calib_ebm.train task=sst2 energy=sharp_hidden
    python -m calib_ebm.train task=csv task.train=mine.csv task.label=stars
    python -m calib_ebm.train -m energy=none,scalar,sharp_hidden seed=1,2,3
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, show_report
from calib_ebm.ranks import is_first_process
from calib_ebm.usage import BANK, NOISE, PLACES, TASK, TRAINING, Usage


def train(config: dict[str, Any]) -> None:
    """Do every stage that is missing, and print the table and the folder."""
    from calib_ebm.learn.early import begin
    from calib_ebm.learn.folder import run_folder

    read = begin(config, say)
    if read is not None:
        from calib_ebm.learn.run import run

        run(config, say, read)
    if is_first_process():
        show_report(run_folder(config))


if __name__ == "__main__":
    settings = TASK | TRAINING | NOISE | BANK | PLACES
    run_command(Usage("train", "train", __doc__ or "", settings), train)
