"""Ours against independent implementations, where their edge rules leave the same bins."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from calib_ebm.calibration.accuracy import accuracy, f1, mcc
from calib_ebm.calibration.errors import (
    brier,
    classwise_pairs,
    ece_classwise,
    ece_debiased_l2,
    ece_pooled,
    ece_top_label,
    nll,
)

theirs = pytest.importorskip("calibration", reason="uncertainty-calibration, of the extra dev")
their_bins = pytest.importorskip("calibration.utils", reason="uncertainty-calibration")
sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn, of the extra dev")

CASES = [(classes, seed) for classes in (2, 3, 6) for seed in range(3)]


def simulated(classes: int, seed: int, texts: int = 500) -> tuple[Tensor, Tensor]:
    """Overconfident continuous probabilities: none is on an edge, some bins are empty."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / 1.5).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits.softmax(dim=1), labels


@pytest.mark.parametrize("bins", [1, 10, 15, 20])
@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_top_label_as_torchmetrics_and_get_ece(classes: int, seed: int, bins: int) -> None:
    probs, labels = simulated(classes, seed)
    ours = ece_top_label(probs, labels, bins)
    torchmetrics_ece = multiclass_calibration_error(probs, labels, classes, bins, norm="l1")
    # torchmetrics rounds float64 probabilities to float32 before it sums them.
    assert ours.item() == pytest.approx(torchmetrics_ece.item(), abs=1e-6)
    uncertainty = theirs.get_ece(probs.numpy(), labels.numpy(), num_bins=bins, mode="top-label")
    assert ours.item() == pytest.approx(uncertainty, abs=1e-12)


@pytest.mark.parametrize("bins", [10, 20])
@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_classwise_and_pooled_as_get_ece(classes: int, seed: int, bins: int) -> None:
    probs, labels = simulated(classes, seed)
    marginal = theirs.get_ece(probs.numpy(), labels.numpy(), num_bins=bins, mode="marginal")
    assert ece_classwise(probs, labels, bins).item() == pytest.approx(marginal, abs=1e-12)
    one_hot = torch.nn.functional.one_hot(labels, classes)
    flat = theirs.get_ece(probs.numpy().ravel(), one_hot.numpy().ravel(), num_bins=bins)
    assert ece_pooled(probs, labels, bins).item() == pytest.approx(flat, abs=1e-12)
    if classes > 2:
        top_label = ece_top_label(probs, labels, bins).item()
        assert top_label != pytest.approx(marginal, abs=1e-3)


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_norms_as_torchmetrics(classes: int, seed: int, norm: Literal["l2", "max"]) -> None:
    probs, labels = simulated(classes, seed)
    other = multiclass_calibration_error(probs, labels, classes, 20, norm=norm)
    assert ece_top_label(probs, labels, norm=norm).item() == pytest.approx(other.item(), abs=1e-6)


# 500 texts in 20 and in 15 bins: the second leaves five of 34 and ten of 33.
@pytest.mark.parametrize("bins", [1, 15, 20])
@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_equal_mass_and_debiased_as_uncertainty_calibration(
    classes: int, seed: int, bins: int
) -> None:
    probs, labels = simulated(classes, seed)

    def other(power: int, debias: bool, mode: str) -> float:
        return their_bins.lower_bound_scaling_ce(
            probs.numpy(), labels.numpy(), power, debias, bins, mode=mode
        )

    for power, norm in ((1, "l1"), (2, "l2")):
        top_label = ece_top_label(probs, labels, bins, binning="mass", norm=norm).item()  # type: ignore[arg-type]
        assert top_label == pytest.approx(other(power, False, "top-label"), abs=1e-12), norm
        if classes > 2:
            marginal = ece_classwise(probs, labels, bins, binning="mass", norm=norm).item()  # type: ignore[arg-type]
            assert marginal == pytest.approx(other(power, False, "marginal"), abs=1e-12), norm
    debiased = ece_debiased_l2(probs, labels, bins).item()
    assert debiased == pytest.approx(other(2, True, "top-label"), abs=1e-9)
    if classes > 2:
        marginal = ece_debiased_l2(probs, labels, bins, pairs=classwise_pairs).item()
        assert marginal == pytest.approx(other(2, True, "marginal"), abs=1e-9)


def test_on_the_edges_get_ece_has_our_rule_and_torchmetrics_another() -> None:
    """.9 is the upper end of our bin, with .86, and the lower end of torchmetrics', with .94."""
    probs = torch.tensor([[0.86, 0.14], [0.9, 0.1], [0.94, 0.06]], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0])
    ours = (abs(0.86 + 0.9 - 1) + abs(0.94 - 1)) / 3
    of_torchmetrics = (abs(0.86 - 0) + abs(0.9 + 0.94 - 2)) / 3
    assert ece_top_label(probs, labels).item() == pytest.approx(ours)
    get_ece = theirs.get_ece(probs.numpy(), labels.numpy(), num_bins=20)
    assert get_ece == pytest.approx(ours)
    other = multiclass_calibration_error(probs, labels, 2, n_bins=20, norm="l1")
    assert other.item() == pytest.approx(of_torchmetrics, abs=1e-6)


def test_at_one_torchmetrics_has_a_bin_of_its_own() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.96, 0.04]], dtype=torch.float64)
    labels = torch.tensor([1, 0])
    assert ece_top_label(probs, labels).item() == pytest.approx(abs(1.96 - 1) / 2)
    other = multiclass_calibration_error(probs, labels, 2, n_bins=20, norm="l1")
    assert other.item() == pytest.approx((abs(1 - 0) + abs(0.96 - 1)) / 2, abs=1e-6)


@pytest.mark.parametrize(("classes", "seed"), CASES)
def test_the_rest_as_scikit_learn(classes: int, seed: int) -> None:
    probs, labels = simulated(classes, seed)
    p, y = probs.numpy(), labels.numpy()
    predicted = p.argmax(axis=1)
    every = list(range(classes))
    average = "binary" if classes == 2 else "macro"
    assert accuracy(probs, labels).item() == sklearn.accuracy_score(y, predicted)
    ours_and_theirs = {
        "mcc": (mcc, sklearn.matthews_corrcoef(y, predicted)),
        "f1": (f1, sklearn.f1_score(y, predicted, average=average)),
        "nll": (nll, sklearn.log_loss(y, p, labels=every)),
        "brier": (brier, np.square(p - np.eye(classes)[y]).sum(axis=1).mean()),
    }
    for name, (ours, other) in ours_and_theirs.items():
        assert ours(probs, labels).item() == pytest.approx(other, abs=1e-12), name
    if classes == 2:
        one_sided = sklearn.brier_score_loss(y, p[:, 1])
        assert brier(probs, labels).item() == pytest.approx(2 * one_sided, abs=1e-12)


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    probs, labels = simulated(6, 0, texts=60)
    kept = (labels < 4) & (probs.argmax(dim=1) < 4)
    y, predicted = labels[kept].numpy(), probs[kept].argmax(dim=1).numpy()
    by_scikit = sklearn.f1_score(y, predicted, average="macro")
    assert f1(probs[kept], labels[kept]).item() == pytest.approx(by_scikit, abs=1e-12)
    over_all_six = sklearn.f1_score(
        y, predicted, labels=list(range(6)), average="macro", zero_division=0
    )
    assert by_scikit != pytest.approx(over_all_six, abs=0.01)
