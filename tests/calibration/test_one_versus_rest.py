"""Platt, isotonic and the binning calibrators against scikit-learn, Kumar's package and netcal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration.binning import HistogramBinning, ScalingBinning
from calib_ebm.calibration.curves import (
    Line,
    bin_means,
    equal_mass_inner_edges,
    equal_width_inner_edges,
    fit_isotonic,
    fit_sigmoid,
)
from calib_ebm.calibration.one_versus_rest import Isotonic, Platt, log_odds

sk_isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn, of the extra dev")
linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn, of the extra dev")
kumar = pytest.importorskip("calibration", reason="uncertainty-calibration, of the extra dev")


def simulated(texts: int, classes: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits + 0.5).softmax(1), 1, generator=generator)[:, 0]
    return 2 * logits, labels


# --- Platt ---


@pytest.mark.parametrize("texts", [30, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_platt_is_logistic_regression_on_smoothed_targets(texts: int, seed: int) -> None:
    """A target of t is t texts of the class and 1 - t of the other."""
    logits, labels = simulated(texts, seed=seed)
    score = log_odds(logits)[:, 1].numpy()
    y = labels.numpy()
    high, low = (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2)
    target = np.where(y == 1, high, low)
    theirs = linear_model.LogisticRegression(C=1e10, tol=1e-10, max_iter=5000)
    x = np.concatenate((score, score))[:, None]
    theirs.fit(x, np.repeat([1, 0], texts), sample_weight=np.concatenate((target, 1 - target)))
    ours = fit_sigmoid(torch.from_numpy(score), labels, smoothed=True)
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert ours.offset == pytest.approx(theirs.intercept_[0], abs=1e-4)
    plain = fit_sigmoid(torch.from_numpy(score), labels, smoothed=False)
    if texts == 30:  # the control: the targets matter
        assert plain.slope > ours.slope * 1.02


def test_platt_is_scikit_learn_s_sigmoid_calibration() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    theirs = getattr(calibration, "_sigmoid_calibration", None)
    if theirs is None:
        pytest.skip("a private function, which this version has not")
    logits, labels = simulated(400)
    score = log_odds(logits)[:, 1]
    a, b = theirs(score.numpy(), labels.numpy())
    ours = fit_sigmoid(score, labels, smoothed=True)
    assert (ours.slope, ours.offset) == pytest.approx((-a, -b), abs=1e-4)


def test_platt_with_separated_classes_is_finite() -> None:
    score = torch.tensor([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    curve = fit_sigmoid(score, torch.tensor([0, 0, 0, 1, 1, 1]), smoothed=True)
    # By symmetry no offset; the targets are 4/5 and 1/5, and their mean over the texts is kept.
    assert curve.offset == pytest.approx(0, abs=1e-6)
    fitted = curve(score)
    assert float((fitted * score).sum()) == pytest.approx(2 * (4 / 5 - 1 / 5) * 3, abs=1e-5)
    assert fitted[0] > 0.01 and fitted[-1] < 0.99


@pytest.mark.parametrize("kind", [Platt, Isotonic, HistogramBinning, ScalingBinning])
def test_two_classes_are_mirrored(kind: type[Platt]) -> None:
    """Which class is called the second makes no difference."""
    logits, labels = simulated(300)
    ours = kind().fit(logits, labels).probabilities(logits)
    other = kind().fit(logits.flip(1), 1 - labels).probabilities(logits.flip(1)).flip(1)
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-5)


def test_log_odds() -> None:
    logits = 3 * torch.randn(50, 4, dtype=torch.float64)
    probs = logits.softmax(1)
    torch.testing.assert_close(log_odds(logits), (probs / (1 - probs)).log())
    assert log_odds(torch.tensor([[900.0, 0.0, 0.0]], dtype=torch.float64))[0, 0] == pytest.approx(
        900 - np.log(2)
    )


# --- Isotonic ---


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60))
def test_isotonic_is_scikit_learn_s_with_ties(pairs: list[tuple[int, bool]]) -> None:
    score = torch.tensor([x / 12 for x, _ in pairs], dtype=torch.float64)
    outcome = torch.tensor([y for _, y in pairs]).double()
    theirs = sk_isotonic.IsotonicRegression(out_of_bounds="clip")
    theirs.fit(score.numpy(), outcome.numpy())
    ours = fit_isotonic(score, outcome)
    at = torch.linspace(-0.2, 1.2, 141, dtype=torch.float64)
    np.testing.assert_allclose(ours(at).numpy(), theirs.predict(at.numpy()), atol=1e-12)
    assert (ours(at).diff() >= 0).all()
    assert (ours.x_P.diff() > 0).all()


def test_isotonic_by_hand() -> None:
    """1 0 | 1 0 1 | 1 pools to 1/2, 2/3 and 1, the second of two violations at once."""
    score = torch.arange(6).double()
    curve = fit_isotonic(score, torch.tensor([1, 0, 1, 0, 1, 1]).double())
    expected = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(curve(score), expected)
    torch.testing.assert_close(curve(torch.tensor([3.5]).double()), torch.tensor([0.75]).double())


def test_isotonic_of_three_classes_is_scikit_learn_s_one_by_one() -> None:
    logits, labels = simulated(500, 3)
    held = simulated(200, 3, seed=1)[0]
    columns = []
    for index in range(3):
        theirs = sk_isotonic.IsotonicRegression(out_of_bounds="clip")
        theirs.fit(logits.softmax(1)[:, index].numpy(), (labels == index).double().numpy())
        columns.append(theirs.predict(held.softmax(1)[:, index].numpy()))
    expected = np.stack(columns, axis=1)
    expected /= expected.sum(axis=1, keepdims=True)
    plain = Isotonic(smooth=False).fit(logits, labels).probabilities(held)
    np.testing.assert_allclose(plain.numpy(), expected, atol=1e-9)
    smooth = Isotonic().fit(logits, labels).probabilities(held)
    torch.testing.assert_close(smooth, (500 * plain + 1 / 3) / 501)
    assert (plain == 0).any() and (smooth > 0).all()


def test_where_no_class_is_thought_possible_the_softmax_stands() -> None:
    calibrator = Isotonic(smooth=False).fit(*simulated(60, 3))
    zero = Line(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    calibrator._curves = [zero] * 3
    logits = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(calibrator.probabilities(logits), logits.softmax(1))


# --- Bins ---


@pytest.mark.parametrize("bins", [1, 10, 20])
@pytest.mark.parametrize("seed", range(3))
def test_scaling_binning_is_kumar_s(bins: int, seed: int) -> None:
    logits, labels = simulated(500, seed=seed)
    held = simulated(300, seed=seed + 10)[0]
    theirs = kumar.calibrators.PlattBinnerCalibrator(500, bins)
    theirs.train_calibration(logits.softmax(1)[:, 1].numpy(), labels.numpy())
    expected = theirs.calibrate(held.softmax(1)[:, 1].numpy())
    ours = ScalingBinning(bins).fit(logits, labels).probabilities(held)[:, 1].numpy()
    # scikit-learn's optimum within it is less exact; a text at an edge may change its bin.
    close = np.abs(ours - expected) < 1e-3
    assert close.mean() > 0.98
    assert len(np.unique(ours)) == bins


def test_scaling_binning_of_three_classes_is_kumar_s_but_for_the_sum() -> None:
    logits, labels = simulated(600, 3)
    theirs = kumar.calibrators.PlattBinnerMarginalCalibrator(600, 20)
    theirs.train_calibration(logits.softmax(1).numpy(), labels.numpy())
    expected = theirs.calibrate(logits.softmax(1).numpy())
    assert np.abs(expected.sum(axis=1) - 1).max() > 0.01  # which theirs leaves at that
    expected /= expected.sum(axis=1, keepdims=True)
    ours = ScalingBinning().fit(logits, labels).probabilities(logits).numpy()
    assert (np.abs(ours - expected) < 2e-3).mean() > 0.98


@pytest.mark.parametrize("bins", [5, 20])
def test_histogram_binning_is_kumar_s_with_equal_mass(bins: int) -> None:
    logits, labels = simulated(500, 3)
    held = simulated(300, 3, seed=1)[0]
    theirs = kumar.calibrators.HistogramMarginalCalibrator(500, bins)
    theirs.train_calibration(logits.softmax(1).numpy(), labels.numpy())
    expected = theirs.calibrate(held.softmax(1).numpy())
    expected /= expected.sum(axis=1, keepdims=True)
    calibrator = HistogramBinning(bins, equal_mass=True, smooth=False).fit(logits, labels)
    np.testing.assert_allclose(calibrator.probabilities(held).numpy(), expected, atol=1e-12)
    wide = HistogramBinning(bins, smooth=False).fit(logits, labels).probabilities(held).numpy()
    assert np.abs(wide - expected).max() > 0.05  # the control


def test_histogram_binning_by_hand() -> None:
    """Bins (0, 1/2] and (1/2, 1]: one in four and two in three are of class 1."""
    p = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 1])
    logits = torch.stack(((1 - p).log(), p.log()), dim=1)
    fitted = HistogramBinning(2, smooth=False).fit(logits, labels)
    expected = torch.tensor([1 / 4] * 4 + [2 / 3] * 3, dtype=torch.float64)
    torch.testing.assert_close(fitted.probabilities(logits)[:, 1], expected)
    smooth = HistogramBinning(2).fit(logits, labels).probabilities(logits)[:, 1]
    torch.testing.assert_close(smooth, (7 * expected + 1 / 2) / 8)


def test_an_empty_bin_has_its_middle_and_the_ends_have_a_bin() -> None:
    edges = equal_width_inner_edges(4)
    steps = bin_means(torch.tensor([0.0, 0.9]).double(), torch.tensor([1.0, 0.0]).double(), edges)
    at = torch.tensor([0.0, 0.25, 0.3, 0.6, 1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 1.0, 0.375, 0.625, 0.0], dtype=torch.float64)
    torch.testing.assert_close(steps(at), expected)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 25))
def test_equal_mass_edges_are_kumar_s(values: list[int], bins: int) -> None:
    score = torch.tensor([value / 20 for value in values], dtype=torch.float64)
    theirs = kumar.utils.get_equal_bins(score.tolist(), bins)
    ours = equal_mass_inner_edges(score, bins).tolist()
    assert ours == [edge for edge in theirs if edge < score.max()]
    counts = torch.searchsorted(torch.tensor(ours).double(), score).bincount()
    if len(set(values)) == len(values):  # without ties the counts differ by one at most
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("bins", [5, 15])
def test_histogram_binning_is_netcal_s(bins: int) -> None:
    """Its edges are half open at the other end, which no probability here lies on."""
    netcal = pytest.importorskip("netcal.binning", reason="netcal, of the extra dev")
    logits, labels = simulated(3000)
    p = logits.softmax(1)[:, 1].numpy()
    theirs = netcal.HistogramBinning(bins=bins)
    theirs.fit(p, labels.numpy())
    ours = HistogramBinning(bins, smooth=False).fit(logits, labels).probabilities(logits)[:, 1]
    np.testing.assert_allclose(ours.numpy(), theirs.transform(p), atol=1e-9)
