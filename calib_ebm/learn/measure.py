"""The stage that measures: scores of held-out texts and noise, the temperature, every estimate.

What it writes is the run folder's contract (`report/files.py`); the page is made from those files
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calib_ebm.calibration.calibrator import Calibrator, check_texts
from calib_ebm.calibration.calibrators import build_calibrator
from calib_ebm.classifier import EnergyClassifier
from calib_ebm.learn.figures import FINE, calibrate, figures, mean_estimate
from calib_ebm.learn.team import here
from calib_ebm.loss.nce import told_apart
from calib_ebm.report.files import write_energies, write_metrics, write_truth
from calib_ebm.report.predictions import Predictions, write_table
from calib_ebm.report.texts import write_texts
from calib_ebm.shapes import Encoded
from calib_ebm.text.task import TaskData

Tell = Callable[[int], None]
"""Takes how many texts are newly done."""


@dataclass(frozen=True)
class Scored:
    """Logits and energies of a set of texts, in its order."""

    logits_NC: Tensor
    energy_N: Tensor | None


def score_set(
    classifier: EnergyClassifier,
    texts: Sequence[Encoded],
    seed: int = 0,
    tell: Tell | None = None,
) -> Scored:
    """Score texts, each on one rank and each once; every rank gets all of it.

    Ranks take passes in turn; what they gather is put back by row, so that no sampler can repeat a
    text and the numbers do not depend on how many ranks there are.

    Args:
        classifier: the model.
        texts: the set.
        seed: for an energy that draws.
        tell: takes how many texts are newly done.
    """
    team = here()
    mine = classifier.score_encoded(texts, team.rank, team.world, seed=seed, tell=tell)
    parts = team.all_of(mine)
    rows = torch.cat([part.rows for part in parts])
    assert torch.equal(rows.sort().values, torch.arange(len(texts))), "each text is scored once"
    order = rows.argsort()
    logits_NC = torch.cat([part.logits_BC for part in parts])[order]
    if mine.energy_B is None:
        return Scored(logits_NC, None)
    return Scored(logits_NC, torch.cat([part.energy_B for part in parts])[order])


@dataclass(frozen=True)
class Measured:
    """What the estimates of a run are made from."""

    fit: Scored
    test: Scored
    noise: Scored | None


def write_measurements(
    folder: Path,
    task: TaskData,
    measured: Measured,
    calibrator_config: Mapping[str, Any],
    further: Mapping[str, float],
    *,
    per_text: int,
    seed: int,
    true_energies: tuple[np.ndarray, np.ndarray] | None = None,
) -> Calibrator:
    """Fit the calibrator, compute every estimate, write the files of the contract.

    Args:
        folder: the run folder.
        task: gives ids, labels, metrics and, where known, the truth.
        measured: scores of the two halves and of held-out noise.
        calibrator_config: the `calibrator` node.
        further: metrics of earlier stages to be kept with these.
        per_text: K, by which noise outnumbered data in training.
        seed: of the bootstrap.
        true_energies: exact energies of the test half and of the noise, where they are known.

    Returns:
        the fitted calibrator.
    """
    table = predictions_of(task, measured)
    truth_NC = _write_truth(folder, task)
    calibrated = calibrate(table, calibrator_config)
    calibrator = calibrated.calibrator
    metrics = dict(further)
    metrics |= figures(table, calibrated, task.metrics, seed=seed, truth_NC=truth_NC)
    metrics |= energy_metrics(measured, per_text)
    metrics |= true_energy_metrics(measured, true_energies)
    if calibrator.temperature is not None:
        metrics["calibrator/temperature"] = calibrator.temperature
    write_table(folder, table)
    write_texts(folder, task.test)
    if measured.noise is not None and measured.test.energy_N is not None:
        assert measured.noise.energy_N is not None
        true_data, true_noise = true_energies if true_energies is not None else (None, None)
        write_energies(
            folder,
            measured.test.energy_N.numpy(),
            measured.noise.energy_N.numpy(),
            true_data,
            true_noise,
        )
    write_metrics(folder, metrics)
    return calibrator


def check_calibration(config: Mapping[str, Any], task: TaskData) -> None:
    """Find out before the training whether the calibrator can be fitted after it.

    Raises:
        InputError: for an unknown calibrator or option, or a fit half that is too small for it.
    """
    name = build_calibrator(config).name
    if name != "none":
        classes = len({example.label for example in task.fit})
        check_texts(f"calibrator={name}", len(task.fit), classes)


def predictions_of(task: TaskData, measured: Measured) -> Predictions:
    """The table of a task's held-out texts and their scores; crossfitted ones stand in it once."""
    parts = [("test", task.test, measured.test)]
    if task.folds is None:
        parts.insert(0, ("fit", task.fit, measured.fit))
    logits_NC = torch.cat([scored.logits_NC for _, _, scored in parts])
    energies = [scored.energy_N for _, _, scored in parts if scored.energy_N is not None]
    return Predictions(
        ids=tuple(e.id for _, examples, _ in parts for e in examples),
        splits=tuple(split for split, examples, _ in parts for _ in examples),
        labels_N=np.asarray([e.label for _, examples, _ in parts for e in examples], np.int64),
        logits_NC=logits_NC.double().numpy(),
        energy_N=torch.cat(energies).double().numpy() if len(energies) == len(parts) else None,
        folds_N=None if task.folds is None else np.asarray(task.folds, dtype=np.int64),
    )


def _write_truth(folder: Path, task: TaskData) -> Tensor | None:
    """Write the exact P(y|x) of both halves, where it is known; return that of the test half."""
    if task.truth is None:
        return None
    both = {e.id: e.text for e in (*task.fit, *task.test)}
    probs = {one: task.truth.label_probs(text) for one, text in both.items()}
    write_truth(folder, tuple(probs), np.asarray(list(probs.values())))
    return torch.tensor([probs[e.id] for e in task.test], dtype=torch.float64)


def energy_metrics(measured: Measured, per_text: int) -> dict[str, float]:
    """Mean energies of held-out texts and noise, their gap, and how well they are told apart."""
    data_N = measured.test.energy_N
    if data_N is None:
        return {}
    metrics = mean_estimate("energy/data", data_N)
    if measured.noise is None or measured.noise.energy_N is None:
        return metrics
    noise_N = measured.noise.energy_N
    metrics |= mean_estimate("energy/noise", noise_N)
    return (
        metrics
        | _difference("energy/gap", data_N, noise_N)
        | _told_apart(data_N, noise_N, per_text)
    )


def _difference(name: str, data_N: Tensor, noise_N: Tensor) -> dict[str, float]:
    """Mean energy of noise less that of data."""
    gap = (noise_N.double().mean() - data_N.double().mean()).item()
    error = math.hypot(
        *(
            sample.double().std().item() / math.sqrt(len(sample)) if len(sample) > 1 else 0.0
            for sample in (data_N, noise_N)
        )
    )
    return {name: gap, f"{name}/low": gap - FINE * error, f"{name}/high": gap + FINE * error}


def _told_apart(data_N: Tensor, noise_N: Tensor, per_text: int) -> dict[str, float]:
    """nce/accuracy of held-out texts against held-out noise, the two kinds weighing the same."""
    right_data, right_noise = told_apart(data_N, noise_N, per_text)
    share = (right_data.mean() + right_noise.mean()).item() / 2
    error = math.hypot(
        *(r.std(unbiased=False).item() / math.sqrt(len(r)) / 2 for r in (right_data, right_noise))
    )
    name = "nce/accuracy"
    return {
        name: share,
        f"{name}/low": max(0.0, share - FINE * error),
        f"{name}/high": min(1.0, share + FINE * error),
    }


def true_energy_metrics(
    measured: Measured, true_energies: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, float]:
    """Correlation of learned and exact energy over held-out texts and noise, where finite."""
    if true_energies is None or measured.noise is None:
        return {}
    if measured.test.energy_N is None or measured.noise.energy_N is None:
        return {}
    learned = torch.cat((measured.test.energy_N, measured.noise.energy_N)).double().numpy()
    exact = np.concatenate(true_energies)
    finite = np.isfinite(exact)
    if finite.sum() < 3:
        return {}
    r, low, high = correlation(learned[finite], exact[finite])
    return {
        "energy/true_correlation": r,
        "energy/true_correlation/low": low,
        "energy/true_correlation/high": high,
        "energy/true_finite_share": float(finite.mean()),
    }


def correlation(x_N: np.ndarray, y_N: np.ndarray) -> tuple[float, float, float]:
    """Pearson's correlation, and the ends of its 95% interval by Fisher's transformation."""
    r = float(np.corrcoef(x_N, y_N)[0, 1])
    # Nearly normal with standard error 1 / sqrt(n - 3).
    spread = FINE / math.sqrt(max(len(x_N) - 3, 1))
    z = math.atanh(min(max(r, -0.9999999), 0.9999999))
    return r, math.tanh(z - spread), math.tanh(z + spread)
