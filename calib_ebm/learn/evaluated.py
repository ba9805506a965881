"""One evaluation as a folder like a run's: figures, table, page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from calib_ebm.errors import InputError
from calib_ebm.learn.figures import Calibrated, calibrate, figures
from calib_ebm.learn.folder import read_config
from calib_ebm.learn.record import RunRecorder, command_line, git_commit, versions
from calib_ebm.names import FACTS
from calib_ebm.report.files import (
    CONFIG,
    ENERGIES,
    METRICS,
    PREDICTIONS,
    REPORT,
    RUN,
    TRUTH,
    write_energies,
    write_metrics,
    write_text,
    write_truth,
)
from calib_ebm.report.page import write_report
from calib_ebm.report.predictions import Predictions, write_table
from calib_ebm.report.records import Energies, Truth
from calib_ebm.report.texts import FILE as TEXTS
from calib_ebm.report.texts import write_texts
from calib_ebm.shapes import Example

Config = Mapping[str, Any]
Say = Callable[[str], None]

EVALUATION = "evaluation"
"""The entry of config.yaml that tells an evaluation from a run."""
FILES = (METRICS, PREDICTIONS, REPORT, TRUTH, TEXTS, ENERGIES, RUN, CONFIG)
"""What an evaluation writes. The settings go last, by which it is known for what it is."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated, whatever the set.

    Attributes:
        energy: as in run.json; "none" where there is none.
        config: the settings of the run, empty for a table from elsewhere.
        notes: sentences that hold for every set.
    """

    task: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    energy: str
    seed: int
    config: Config
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredSet:
    """One set: what was predicted, and all that is known of it besides.

    Attributes:
        truth: the exact P(y|x) of the reported texts, where it is known.
        energies: of held-out texts and noise, where a run stored them.
        notes: sentences for the person.
        digests: of the data, by the name of their source.
        further: metrics that are not functions of this table alone.
        examples: the reported texts, where they are known.
    """

    table: Predictions
    truth: Truth | None = None
    energies: Energies | None = None
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Evaluated:
    """A set's table, its probabilities before and after calibration, and its figures."""

    table: Predictions
    calibrated: Calibrated
    metrics: Mapping[str, float]


def evaluate_table(subject: Subject, measured: MeasuredSet, config: Config) -> Evaluated:
    """Fit the calibrator and compute every figure.

    Raises:
        InputError: where the calibrator cannot be fitted.
    """
    calibrated = calibrate(measured.table, config["calibrator"])
    truth_NC = _truth_of(measured.table.of("test"), measured.truth)
    found = figures(
        measured.table, calibrated, subject.metrics, seed=subject.seed, truth_NC=truth_NC
    )
    metrics = {**measured.further, **found}
    if calibrated.calibrator.temperature is not None:
        metrics["calibrator/temperature"] = calibrated.calibrator.temperature
    return Evaluated(measured.table, calibrated, metrics)


def _truth_of(test: Predictions, truth: Truth | None) -> Tensor | None:
    """The exact probabilities of the reported texts, in their order, where all are known."""
    if truth is None:
        return None
    row_of = {one: row for row, one in enumerate(truth.ids)}
    if not {*test.ids} <= {*row_of}:
        return None
    return torch.from_numpy(truth.probs_NC[np.asarray([row_of[one] for one in test.ids])])


def prepare_folder(out: Path) -> Path:
    """Make the folder to write to, rid of an earlier evaluation.

    Raises:
        InputError: when a run, or something else, lies there.
    """
    there = [file for file in (*FILES, "model", FACTS) if (out / file).exists()]
    if there and EVALUATION not in (read_config(out / CONFIG) if CONFIG in there else {}):
        raise InputError(
            f"{out} holds {', '.join(there)}, which no evaluation wrote.",
            "an empty folder, or one of an earlier evaluation, which is replaced",
            "Give another folder with out=..., or leave it out.",
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"out={out} is a file.", "a folder", "Give another folder with out=...")
    out.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (out / file).unlink(missing_ok=True)
    return out


def write_evaluation(
    out: Path, subject: Subject, measured: MeasuredSet, evaluated: Evaluated, config: Config
) -> None:
    """Write the folder's files and its page. The folder is a prepared one."""
    settings = {**subject.config, EVALUATION: dict(config)}
    write_text(out / CONFIG, yaml.safe_dump(settings, sort_keys=False))
    recorder, calibrator = RunRecorder(out), evaluated.calibrated.calibrator
    recorder.set(
        command=command_line(),
        versions=versions(),
        git_commit=git_commit(),
        task=subject.task,
        labels=list(subject.labels),
        metrics=list(subject.metrics),
        energy=subject.energy,
        noise=None,
        seed=subject.seed,
        data_digests=dict(measured.digests),
        temperature=calibrator.temperature,
        calibrator=calibrator.state(),
        status="running",
    )
    recorder.note(*subject.notes, *measured.notes, *calibrator.notes)
    write_table(out, measured.table)
    if measured.examples:
        write_texts(out, measured.examples)
    if measured.truth is not None:
        write_truth(out, measured.truth.ids, measured.truth.probs_NC)
    if measured.energies is not None:
        each = measured.energies
        write_energies(out, each.data_N, each.noise_N, each.true_data_N, each.true_noise_N)
    write_metrics(out, evaluated.metrics)
    recorder.set(status="complete")
    write_report(out)
