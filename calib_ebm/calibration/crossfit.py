"""Every text reported and every text fitted on, and none of them both at once.

The texts are dealt into k folds; those of a fold are given the probabilities of a calibrator that
was fitted on the others. All n labels serve both uses, where cutting the set in two leaves n / 2 to
each; the figures are those of calibrators fitted on n (k - 1) / k texts. Stone (1974), Platt (1999,
section 2.2: three-fold cross-validation for the sigmoid).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.errors import InputError


def crossfit_probabilities(
    unfitted: Callable[[], Calibrator], logits_NC: Tensor, labels_N: Tensor, fold_N: Tensor
) -> Tensor:
    """Calibrated float64 probabilities, those of each fold by a calibrator fitted on the others.

    Args:
        unfitted: makes a new calibrator.
        logits_NC: outputs before softmax of N texts.
        labels_N: their labels.
        fold_N: the fold of each, from 0.

    Raises:
        InputError: where a calibrator cannot be fitted on the other folds, naming the fold.
    """
    probs_NC = torch.empty_like(logits_NC, dtype=torch.float64)
    for fold in fold_N.unique().tolist():
        inside_N = fold_N == fold
        try:
            fitted = unfitted().fit(logits_NC[~inside_N], labels_N[~inside_N])
        except InputError as error:
            given = f"Without fold {fold}: {error.given}"
            raise InputError(given, error.allowed, error.to_do) from error
        probs_NC[inside_N] = fitted.probabilities(logits_NC[inside_N])
    return probs_NC
