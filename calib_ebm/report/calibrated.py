"""The probabilities that are reported as calibrated, from a run's files alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from calib_ebm.calibration.calibrators import build_calibrator
from calib_ebm.calibration.crossfit import crossfit_probabilities
from calib_ebm.errors import InputError
from calib_ebm.report.files import CONFIG, RunFolder


def calibrated_probs(run: RunFolder) -> Tensor:
    """Calibrated probabilities of the reported texts, N by C.

    Those of the stored calibrator; but where a run was crossfitted, that one has seen every label,
    and each fold has the probabilities of a calibrator fitted on the others once more.

    Raises:
        InputError: when a crossfitted run's settings name no calibrator.
    """
    test = run.predictions.of("test")
    logits_NC = torch.from_numpy(test.logits_NC)
    if run.predictions.folds_N is None:
        return run.run.calibrator.probabilities(logits_NC)
    settings = run.config.get("evaluation", run.config)
    node = settings.get("calibrator") if isinstance(settings, Mapping) else None
    if not isinstance(node, Mapping):
        raise InputError(
            f"{run.path / CONFIG} names no calibrator, and the table has folds to be calibrated.",
            "the settings as train or evaluate wrote them",
            "Measure it again: python -m calib_ebm.evaluate table=...",
        )
    return crossfit_probabilities(
        lambda: build_calibrator(node),
        logits_NC,
        torch.from_numpy(test.labels_N),
        torch.from_numpy(run.predictions.folds_N),
    )
