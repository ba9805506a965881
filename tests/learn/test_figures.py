"""From a table to its figures: halves, folds, no labels, nothing to fit on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from calib_ebm.calibration.errors import ece_top_label
from calib_ebm.calibration.temperature import Temperature
from calib_ebm.errors import InputError
from calib_ebm.learn.figures import calibrate, figures
from calib_ebm.report.predictions import Predictions

TEMPERATURE = {"name": "temperature", "lower": 0.01, "upper": 100.0}
N = 90


def table(splits: tuple[str, ...], folds: Any = None, unlabelled: str = "") -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits_NC = torch.randn(N, 2, generator=generator).double()
    labels_N = logits_NC.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    labels_N[torch.tensor([split == unlabelled for split in splits])] = -1
    ids = tuple(f"dev-{i}" for i in range(N))
    energy_N = np.linspace(-1, 1, N)
    return Predictions(
        ids,
        splits,
        labels_N.numpy(),
        4 * logits_NC.numpy(),
        energy_N,
        None if folds is None else folds,
    )


HALVES = ("fit",) * 40 + ("test",) * 50
ALL = ("test",) * N


def test_the_calibrator_is_fitted_on_the_fit_half_and_sees_nothing_else() -> None:
    found = calibrate(table(HALVES), TEMPERATURE)
    whole = table(HALVES)
    fitted = Temperature().fit(
        torch.from_numpy(whole.logits_NC[:40]), torch.from_numpy(whole.labels_N[:40])
    )
    assert found.calibrator.temperature == fitted.temperature
    expected_NC = (torch.from_numpy(whole.logits_NC[40:]) / fitted.temperature).softmax(dim=1)
    torch.testing.assert_close(found.calibrated_NC, expected_NC)


def test_folds_are_reported_by_their_calibrators_and_the_saved_one_saw_all() -> None:
    folds = np.arange(N) % 3
    crossfitted = table(ALL, folds)
    found = calibrate(crossfitted, TEMPERATURE)
    logits_NC = torch.from_numpy(crossfitted.logits_NC)
    labels_N = torch.from_numpy(crossfitted.labels_N)
    assert found.calibrator.temperature == Temperature().fit(logits_NC, labels_N).temperature
    for fold in range(3):
        inside = torch.from_numpy(folds == fold)
        one = Temperature().fit(logits_NC[~inside], labels_N[~inside])
        torch.testing.assert_close(
            found.calibrated_NC[inside], one.probabilities(logits_NC[inside])
        )
    assert not torch.allclose(found.calibrated_NC, found.calibrator.probabilities(logits_NC))
    numbers = figures(crossfitted, found, ("acc",), seed=0)
    assert numbers["test_calibrated/cal/ece"] == ece_top_label(found.calibrated_NC, labels_N).item()


def test_without_labels_there_are_only_figures_that_need_none() -> None:
    unlabelled = table(HALVES, unlabelled="test")
    numbers = figures(unlabelled, calibrate(unlabelled, TEMPERATURE), ("acc",), seed=0)
    names = {name.removesuffix("/low").removesuffix("/high") for name in numbers}
    of_both = {f"{p}/{m}" for p in ("test", "test_calibrated") for m in ("confidence", "entropy")}
    assert names == of_both | {"energy/data"}
    probs_NC = torch.from_numpy(unlabelled.logits_NC[40:]).softmax(dim=1)
    entropy = torch.distributions.Categorical(probs_NC).entropy().mean().item()
    assert numbers["test/entropy"] == pytest.approx(entropy, abs=1e-9)
    assert numbers["test/confidence"] == pytest.approx(probs_NC.amax(dim=1).mean().item())
    labelled = figures(table(HALVES), calibrate(table(HALVES), TEMPERATURE), ("acc",), seed=0)
    assert "test/cal/ece" in labelled  # the control
    assert labelled["energy/data"] == numbers["energy/data"]


def test_nothing_to_fit_on_or_to_report() -> None:
    with pytest.raises(InputError, match="fit half has no text to fit it on"):
        calibrate(table(ALL), TEMPERATURE)
    with pytest.raises(InputError, match="fit half has no labels to fit it on"):
        calibrate(table(HALVES, unlabelled="fit"), TEMPERATURE)
    with pytest.raises(InputError, match="so none is reported"):
        calibrate(table(("fit",) * N), TEMPERATURE)
    found = calibrate(table(ALL), {"name": "none"})  # the control
    assert torch.equal(found.plain_NC, found.calibrated_NC)
