"""Bootstrap and Student intervals: against plain resampling, closed forms and SciPy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration import accuracy, errors, ordered, resample, selective, smooth
from calib_ebm.calibration.brier import brier_parts
from calib_ebm.calibration.floors import null_ece
from calib_ebm.calibration.intervals import (
    Estimate,
    estimates_with_intervals,
    paired_difference,
    student_quantile,
)
from calib_ebm.calibration.resample import bootstrap, mean_sums
from calib_ebm.errors import InputError

stats = pytest.importorskip("scipy.stats", reason="SciPy, of the extra dev")

TASK_METRICS = ("acc", "mcc", "f1")
OF_LABELS = {
    "cls/acc": accuracy.accuracy,
    "cls/mcc": accuracy.mcc,
    "cls/f1": accuracy.f1,
    "cal/ece": errors.ece_top_label,
    "cal/ece_classwise": errors.ece_classwise,
    "cal/ece_pooled": errors.ece_pooled,
    "nll": errors.nll,
    "brier": errors.brier,
    "cal/ece_equal_mass": ordered.ece_equal_mass,
    "cal/ece_debiased_l2": errors.ece_debiased_l2,
    "cal/ece_sweep": ordered.ece_sweep,
    "cal/smooth_ece": smooth.smooth_ece,
    "cal/ks": ordered.ks_error,
    "brier/reliability": lambda *given: brier_parts(*given).reliability,
    "brier/resolution": lambda *given: brier_parts(*given).resolution,
    "brier/uncertainty": lambda *given: brier_parts(*given).uncertainty,
    "brier/within": lambda *given: brier_parts(*given).within,
    "selective/aurc": selective.aurc,
    "selective/e_aurc": selective.e_aurc,
}
BINNED = {name for name in OF_LABELS if "ece" in name or "brier/" in name} - {
    "cal/ece_sweep",
    "cal/smooth_ece",
}
OF_TRUTH = {
    "cal/true": errors.true_calibration_error,
    "cal/true_pointwise": errors.pointwise_error,
}
ENDS = torch.tensor([0.025, 0.975], dtype=torch.float64)
FLOORS = {
    f"{name}/{part}"
    for name in OF_LABELS
    if name.startswith("cal/") or name == "brier/reliability"
    for part in ("floor", "p_value")
}


def simulated(texts: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Overconfident probabilities, labels, and the probabilities that the labels come from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    truth = (logits / 1.5).softmax(dim=1)
    labels = torch.multinomial(truth, 1, generator=generator)[:, 0]
    return logits.softmax(dim=1), labels, truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 5])
def test_values_are_exactly_the_pure_functions(classes: int, dtype: torch.dtype) -> None:
    probs, labels, truth = simulated(150, classes)
    probs, truth = probs.to(dtype), truth.to(dtype)
    estimates = estimates_with_intervals(
        probs, labels, TASK_METRICS, resamples=50, truth_NC=truth, bins=15
    )
    assert set(estimates) == {*OF_LABELS, *OF_TRUTH, *FLOORS}
    for name, pure in OF_LABELS.items():
        bins = (15,) if name in BINNED else ()
        assert estimates[name].value == pure(probs, labels, *bins).item(), name
    assert estimates["cal/true"].value == errors.true_calibration_error(probs, truth, 15).item()
    pointwise = errors.pointwise_error(probs, truth).item()
    assert estimates["cal/true_pointwise"].value == pointwise


@pytest.mark.parametrize("classes", [2, 4])
def test_a_resample_is_the_estimate_of_the_texts_drawn(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two resamples, taken literally: the interval's ends are quantiles between their estimates."""
    probs, labels, truth = simulated(80, classes)
    drawn = [torch.randint(80, (80,), generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    weights = torch.stack([torch.bincount(index, minlength=80) for index in drawn], dim=1).double()
    monkeypatch.setattr(resample, "_weights", lambda *_: weights)
    estimates = estimates_with_intervals(probs, labels, TASK_METRICS, resamples=2, truth_NC=truth)
    cases = [(OF_LABELS, labels), (OF_TRUTH, truth)]
    for functions, target in cases:
        for name, pure in functions.items():
            both = torch.stack([pure(probs[index], target[index]) for index in drawn])
            low, high = both.quantile(ENDS).tolist()
            value = pure(probs, target).item()
            expected = (value, min(low, value), max(high, value))
            atol = 1e-6 if name == "cal/smooth_ece" else 1e-12  # found by search
            assert estimates[name] == pytest.approx(expected, abs=atol), name


def test_weights_are_multinomial() -> None:
    weights = resample._weights(50, 4000, torch.Generator().manual_seed(0))
    assert weights.shape == (50, 4000)
    assert torch.equal(weights.sum(dim=0), torch.full((4000,), 50.0).double())
    assert weights.mean(dim=1).sub(1).abs().max() < 0.1
    assert weights.var().item() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_accuracy_has_the_binomial_interval() -> None:
    right = torch.tensor([True] * 80 + [False] * 20)
    probs = torch.where(right[:, None], torch.tensor([[0.8, 0.2]]), torch.tensor([[0.3, 0.7]]))
    estimate = estimates_with_intervals(probs, torch.zeros(100).long(), resamples=5000)["cls/acc"]
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.8) / 100
    assert estimate == pytest.approx((0.8, low, high), abs=0.0101)


def test_the_interval_covers_what_is_estimated() -> None:
    """Of 300 sets of 60 exponential numbers, the mean's 95% interval holds the true mean in 93%.

    The percentile interval of a skewed mean is known to fall a little short at 60; an interval at
    the wrong level, of the wrong spread, or of the wrong estimate would be far off.
    """
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(300):
        values = -torch.rand(60, generator=generator, dtype=torch.float64).log()
        resampled = bootstrap({"mean": mean_sums(values)}, 60, resamples=300, seed=seed)["mean"]
        low, high = resampled.quantile(ENDS).tolist()
        covered += low < 1 < high
    assert 0.88 <= covered / 300 <= 0.98


@given(texts=st.integers(1, 60), classes=st.integers(2, 4), seed=st.integers(0, 10**4))
def test_an_interval_holds_its_value(texts: int, classes: int, seed: int) -> None:
    probs, labels, truth = simulated(texts, classes, seed)
    estimates = estimates_with_intervals(
        probs, labels, TASK_METRICS, resamples=20, seed=seed, truth_NC=truth
    )
    for name, (value, low, high) in estimates.items():
        assert math.isfinite(value), name
        # The floor's 5% and 95% points need not hold the mean of a very skewed distribution.
        assert low <= high if name.endswith("floor") else low <= value <= high, name


def test_sixteen_times_the_texts_give_a_quarter_of_the_width() -> None:
    def width(texts: int) -> float:
        probs, labels, _ = simulated(texts)
        estimate = estimates_with_intervals(probs, labels, resamples=300)["nll"]
        return estimate.high - estimate.low

    assert width(3200) == pytest.approx(width(200) / 4, rel=0.3)


def test_seeds_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels, _ = simulated(100)
    state = torch.get_rng_state()
    once = estimates_with_intervals(probs, labels, resamples=400, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert estimates_with_intervals(probs, labels, resamples=400, seed=1) == once
    other = estimates_with_intervals(probs, labels, resamples=400, seed=2)
    assert other["nll"].value == once["nll"].value
    assert other["nll"].low != once["nll"].low
    monkeypatch.setattr(resample, "CHUNK", 1500)
    in_parts = estimates_with_intervals(probs, labels, resamples=400, seed=1)
    assert in_parts["nll"] == pytest.approx(once["nll"], rel=0.05)


def test_the_floor_stands_beside_the_ece() -> None:
    probs, labels, _ = simulated(120)
    estimates = estimates_with_intervals(probs, labels, resamples=200, seed=4)
    floor = null_ece(probs, draws=200, seed=4)
    assert estimates["cal/ece/floor"].value == floor.mean
    assert estimates["cal/ece/floor"].high == floor.p95
    assert estimates["cal/ece/floor"].low < floor.mean
    assert "cal/true" not in estimates


def test_the_p_value_is_wilson_s_share_of_draws() -> None:
    probs, labels, _ = simulated(400)
    estimates = estimates_with_intervals(probs, labels, resamples=300)
    value, low, high = estimates["cal/ece/p_value"]
    theirs = stats.binomtest(round(value * 300), 300).proportion_ci(method="wilson")
    # The share is (1 + k) / (1 + draws), which is no whole number of the draws.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    assert value < 0.05
    _, labels_of_itself, _ = simulated(400, seed=1)
    calibrated = simulated(400, seed=1)[2]
    assert estimates_with_intervals(calibrated, labels_of_itself)["cal/ece/p_value"].value > 0.05


def test_many_classes_and_texts_stay_small() -> None:
    probs, labels, _ = simulated(2000, classes=80)
    estimates = estimates_with_intervals(probs, labels, TASK_METRICS, resamples=20)
    assert estimates["cal/ece_classwise"].value == errors.ece_classwise(probs, labels).item()


def test_bad_input() -> None:
    probs, labels, truth = simulated(10)
    with pytest.raises(InputError, match="the metric 'auc'"):
        estimates_with_intervals(probs, labels, ("acc", "auc"))
    with pytest.raises(InputError, match="resamples is 1"):
        estimates_with_intervals(probs, labels, resamples=1)
    with pytest.raises(InputError, match="look like logits"):
        estimates_with_intervals(probs.log(), labels)
    with pytest.raises(InputError, match="true probabilities of row 0"):
        estimates_with_intervals(probs, labels, truth_NC=truth / 2)
    with pytest.raises(InputError, match="bins is 0"):
        estimates_with_intervals(probs, labels, bins=0)


# --- Over seeds ---


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 9, 30, 101])
def test_student_quantile_as_scipy(degrees: int, level: float) -> None:
    expected = stats.t.ppf((1 + level) / 2, degrees)
    assert student_quantile(level, degrees) == pytest.approx(expected, rel=1e-9)


@given(
    pairs=st.lists(
        st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=12
    ).filter(lambda pairs: len({round(a - b, 3) for a, b in pairs}) > 1),
    level=st.sampled_from([0.8, 0.95, 0.99]),
)
def test_paired_difference_as_scipy(pairs: list[tuple[float, float]], level: float) -> None:
    a, b = zip(*pairs, strict=True)
    theirs = stats.ttest_rel(a, b).confidence_interval(level)
    mean = sum(a) / len(a) - sum(b) / len(b)
    expected = (mean, theirs.low, theirs.high)
    assert paired_difference(a, b, level) == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_pairing_resolves_what_is_hidden_between_seeds() -> None:
    """Seeds differ by ten times the methods' difference: the unpaired interval holds zero."""
    a, b = [0.10, 0.20, 0.30, 0.41], [0.08, 0.18, 0.28, 0.39]
    paired = paired_difference(a, b)
    assert 0 < paired.low <= paired.high
    assert paired.value == pytest.approx(0.02)
    unpaired = stats.ttest_ind(a, b).confidence_interval(0.95)
    assert unpaired.low < 0 < unpaired.high
    reverse = paired_difference(b, a)
    assert reverse == pytest.approx((-paired.value, -paired.high, -paired.low))


def test_equal_differences_have_an_interval_of_no_width() -> None:
    assert paired_difference([2.0, 3.0], [1.0, 2.0]) == Estimate(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1.0], [2.0], "1 values against 1"),
        ([], [], "0 values against 0"),
        ([1.0, 2.0], [1.0], "2 values against 1"),
        ([1.0, math.nan], [1.0, 2.0], "not finite"),
    ],
)
def test_pairs_are_checked(a: list[float], b: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        paired_difference(a, b)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_the_level_is_checked(level: float) -> None:
    with pytest.raises(InputError, match="level is"):
        paired_difference([1.0, 2.0], [2.0, 4.0], level)
