"""Measure a finished run again: on its own test half, on other texts, on texts made worse.

The calibrator is fitted on the run's fit half, never on what is reported. Several runs are
measured as an ensemble, the mean of their probabilities. A stored table of predictions is measured
without a model. Processes that torchrun or srun start share the scoring.

    python -m calib_ebm.evaluate run=runs/... calibrator=none
    python -m calib_ebm.evaluate run=runs/... data=reviews.csv text=review
    python -m calib_ebm.evaluate run=runs/... corrupt=tokens:0.1,typos:0.1
    python -m calib_ebm.evaluate run=runs/... ood=cola:GLUE/CoLA
    python -m calib_ebm.evaluate run='runs/a,runs/b,runs/c'
    python -m calib_ebm.evaluate run=runs/... mc_dropout=20
    python -m calib_ebm.evaluate table=runs/... calibrator=none
    python -m calib_ebm.evaluate table=mine.csv probs=p_bad,p_good label=truth
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, show_report, show_reports, show_stress
from calib_ebm.usage import Usage

SETTINGS = {
    "run": "the run folder, which train printed last; several, or a pattern such as runs/*: an "
    "ensemble",
    "data": "csv, tsv, jsonl or parquet files of texts, labelled or not; null: the run's own test "
    "half",
    "corrupt": "the test half made worse: tokens:RATE, typos:RATE, truncate:SHARE, several with "
    "commas",
    "ood": "texts of another task, told from the test half by energy and by probabilities: files, "
    "or a task of GLUE with its folder, cola:GLUE/CoLA",
    "mc_dropout": "passes with dropout on, whose probabilities are averaged",
    "text, text_pair, label": "columns; null: as in the run's own data, or sentence and label",
    "data_dir": "where the run's own data are now, when they have moved",
    "table": "in place of run: a run folder, a folder of tables, or a file of predictions",
    "probs, logits, labels": "columns of a file's probabilities or logits, one for each class, and "
    "names of the classes; null: those that begin with prob or logit",
    "id, split, energy": "further columns; null: those of these names, where there are such",
    "folds": "report all rows of a table, each of so many folds calibrated by the others",
    "device, threads": "auto, cpu or cuda; threads on the CPU",
    "tokens_per_pass": "of the encoder; fewer where a GPU's memory is small",
    "out": "where to write; null: evaluations/<name> in the run folder",
}
LISTS = ("run", "data", "corrupt", "ood", "table", "probs", "logits", "labels")


def evaluate(config: dict[str, Any]) -> None:
    """Score, calibrate, estimate, and print the tables and the folder."""
    from calib_ebm.learn.finished import check_asked

    check_asked(config)  # what is wrong is said before torch is imported
    from calib_ebm.learn import evaluation
    from calib_ebm.report.console import stress_tables

    done = evaluation.evaluate(config, say)
    if not done.folders:
        return  # this process has only helped
    if done.stress:
        show_stress(done.home, stress_tables(done.stress))
        return
    if len(done.folders) == 1:
        show_report(done.home)
        return
    show_reports(done.home, done.folders)


if __name__ == "__main__":
    run_command(Usage("evaluate", "evaluate", __doc__ or "", SETTINGS, lists=LISTS), evaluate)
