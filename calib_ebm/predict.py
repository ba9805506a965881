"""Score texts with a finished run's model: calibrated probabilities and an energy for each.

A file of any size is read piece by piece. For each of its rows one is written, in their order: the
predicted class, its probability (confidence), the probability of each class, the energy in nats.
Stopped or killed, the same command goes on where it was. Processes that torchrun or srun start
share the work.

    python -m calib_ebm.predict run=runs/... input=new.csv output=scored.parquet
    python -m calib_ebm.predict run=runs/... input=new.csv output=out.csv keep=n
    python -m calib_ebm.predict run=... input=a.jsonl output=b.jsonl text=body
    python -m calib_ebm.predict run='runs/a,runs/b' input=new.tsv output=out.tsv
    python -m calib_ebm.predict run=... input=new.csv output=out.csv processes=2
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, say_path
from calib_ebm.usage import Usage

SETTINGS = {
    "run": "the run folder, which train printed last, or a model folder; several: the mean of "
    "their probabilities",
    "input": "csv, tsv, jsonl or parquet",
    "output": "where the scores go: .csv, .tsv, .jsonl or .parquet",
    "text, text_pair": "columns; null: as in the run's own data, else text or sentence",
    "keep": "columns of the input to copy, patterns too; null: id, where there is one",
    "device, precision": "auto, cpu or cuda; 32-true or bf16-mixed",
    "processes": "of this machine that share the work",
    "overwrite": "true scores again what is finished, or was begun with other settings",
}
LISTS = ("run", "input", "output", "keep", "delimiter")


def predict(config: dict[str, Any]) -> None:
    """Score what is missing and print where it is."""
    from calib_ebm.learn.predicting import predict as score

    say_path(score(config, say))


if __name__ == "__main__":
    run_command(Usage("predict", "predict", __doc__ or "", SETTINGS, lists=LISTS), predict)
