"""From a table of predictions to its figures: the calibrator fitted, every estimate with interval.

Nothing here needs a model, so that `train`, `evaluate` on a model and `evaluate` on a stored table
give the same numbers for the same table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.calibrators import build_calibrator
from calib_ebm.calibration.crossfit import crossfit_probabilities
from calib_ebm.calibration.intervals import estimates_with_intervals
from calib_ebm.errors import InputError
from calib_ebm.report.predictions import Predictions

FINE = 1.959964
"""Half the width of a 95% interval of a mean, in standard errors."""


class Calibrated(NamedTuple):
    """The reported texts of a table, before and after calibration."""

    calibrator: Calibrator
    """Fitted on the fit half; of a crossfitted table on all of it, for texts to come."""
    plain_NC: Tensor
    calibrated_NC: Tensor


def calibrate(table: Predictions, calibrator_config: Mapping[str, Any]) -> Calibrated:
    """Fit the calibrator on the fit half and apply it to the reported half, or by folds.

    Raises:
        InputError: when there is nothing to fit on or to report, or the fit half has no labels.
    """
    fit, test = table.of("fit"), table.of("test")
    if not test.ids:
        raise InputError(
            f"None of the table's {len(table.ids)} rows is of split test, so none is reported.",
            "split fit for rows to calibrate on, split test for rows to report",
            "Correct the column, or leave it out.",
        )
    calibrator = build_calibrator(calibrator_config)
    test_NC = torch.from_numpy(test.logits_NC)
    if calibrator.name != "none":
        _require_fit_half(fit, calibrator)
    if calibrator.name != "none" or (len(fit.ids) and (fit.labels_N >= 0).all()):
        fit_NC, fit_N = torch.from_numpy(fit.logits_NC), torch.from_numpy(fit.labels_N)
        calibrator.fit(fit_NC, fit_N)
    if table.folds_N is None:
        calibrated_NC = calibrator.probabilities(test_NC)
    else:
        calibrated_NC = crossfit_probabilities(
            lambda: build_calibrator(calibrator_config),
            test_NC,
            torch.from_numpy(test.labels_N),
            torch.from_numpy(table.folds_N),
        )
    return Calibrated(calibrator, test_NC.softmax(dim=1), calibrated_NC)


def _require_fit_half(fit: Predictions, calibrator: Calibrator) -> None:
    if not fit.ids or (fit.labels_N < 0).any():
        why = "has no text to fit it on" if not fit.ids else "has no labels to fit it on"
        raise InputError(
            f"calibrator={calibrator.name}, and the table's fit half {why}.",
            "labelled texts of split fit, which are then not reported",
            "Set calibrator=none to measure the probabilities as they are.",
        )


def figures(
    table: Predictions,
    calibrated: Calibrated,
    metrics: Sequence[str],
    *,
    seed: int,
    truth_NC: Tensor | None = None,
) -> dict[str, float]:
    """Every figure of the reported half by its name in metrics.json, before and after calibration.

    Without labels these are the ones that need none: mean confidence and mean entropy of the
    probabilities, and the mean energy.

    Args:
        table: what was predicted.
        calibrated: of the same table.
        metrics: the task's own.
        seed: of the bootstrap.
        truth_NC: the exact P(y|x) of the reported half, where it is known.
    """
    test = table.of("test")
    found: dict[str, float] = {}
    both = (("test", calibrated.plain_NC), ("test_calibrated", calibrated.calibrated_NC))
    for prefix, probs_NC in both:
        if table.labelled:
            estimates = estimates_with_intervals(
                probs_NC, torch.from_numpy(test.labels_N), metrics, seed=seed, truth_NC=truth_NC
            )
            found |= flat(estimates, prefix)
        found |= mean_estimate(f"{prefix}/confidence", probs_NC.amax(dim=1))
        found |= mean_estimate(f"{prefix}/entropy", entropy_each(probs_NC))
    if test.energy_N is not None:
        found |= mean_estimate("energy/data", torch.from_numpy(test.energy_N))
    return found


def entropy_each(probs_NC: Tensor) -> Tensor:
    """Entropy of each row in nats, 0 log 0 being 0.

    >>> entropy_each(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    return torch.special.entr(probs_NC).sum(dim=1)


def flat(estimates: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Estimates under their names in metrics.json, each with the ends of its interval."""
    named = {}
    for name, estimate in estimates.items():
        named[f"{prefix}/{name}"] = estimate.value
        named[f"{prefix}/{name}/low"] = estimate.low
        named[f"{prefix}/{name}/high"] = estimate.high
    return named


def mean_estimate(name: str, values_N: Tensor) -> dict[str, float]:
    """A mean with its normal 95% interval, under its names in metrics.json."""
    values_N = values_N.double()
    mean = values_N.mean().item()
    error = values_N.std().item() / math.sqrt(len(values_N)) if len(values_N) > 1 else 0.0
    return {name: mean, f"{name}/low": mean - FINE * error, f"{name}/high": mean + FINE * error}
