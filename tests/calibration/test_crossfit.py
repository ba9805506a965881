"""Crossfitting against the loop over folds written out, and against what would leak."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calib_ebm.calibration.crossfit import crossfit_probabilities
from calib_ebm.calibration.temperature import NoCalibration, Temperature
from calib_ebm.errors import InputError


@pytest.fixture
def predictions() -> tuple[Tensor, Tensor]:
    """Overconfident logits of 60 texts, and their labels."""
    generator = torch.Generator().manual_seed(0)
    logits_NC = torch.randn(60, 3, generator=generator).double()
    labels_N = logits_NC.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return 3 * logits_NC, labels_N


def test_each_fold_is_calibrated_by_the_others(predictions: tuple[Tensor, Tensor]) -> None:
    logits_NC, labels_N = predictions
    fold_N = torch.arange(60) % 4
    ours_NC = crossfit_probabilities(Temperature, logits_NC, labels_N, fold_N)
    for row in range(60):
        rest = [i for i in range(60) if i % 4 != row % 4]
        fitted = Temperature().fit(logits_NC[rest], labels_N[rest])
        theirs_C = (logits_NC[row] / fitted.temperature).softmax(dim=0)
        torch.testing.assert_close(ours_NC[row], theirs_C, rtol=0, atol=1e-12)


def test_a_fold_s_own_labels_do_not_touch_its_probabilities(
    predictions: tuple[Tensor, Tensor],
) -> None:
    logits_NC, labels_N = predictions
    fold_N = torch.arange(60) % 4
    ours_NC = crossfit_probabilities(Temperature, logits_NC, labels_N, fold_N)
    turned_N = torch.where(fold_N == 2, (labels_N + 1) % 3, labels_N)
    turned_NC = crossfit_probabilities(Temperature, logits_NC, turned_N, fold_N)
    assert torch.equal(ours_NC[fold_N == 2], turned_NC[fold_N == 2])
    assert not torch.equal(ours_NC[fold_N != 2], turned_NC[fold_N != 2])  # the control


def test_without_a_calibrator_it_is_the_softmax(predictions: tuple[Tensor, Tensor]) -> None:
    logits_NC, labels_N = predictions
    ours_NC = crossfit_probabilities(NoCalibration, logits_NC, labels_N, torch.arange(60) % 2)
    assert torch.equal(ours_NC, logits_NC.softmax(dim=1))


def test_folds_that_cannot_be_fitted_on_are_named() -> None:
    logits_NC = torch.randn(4, 2)
    labels_N, fold_N = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    with pytest.raises(InputError, match=r"Without fold 1: .* of 1 class"):
        crossfit_probabilities(Temperature, logits_NC, labels_N, fold_N)
