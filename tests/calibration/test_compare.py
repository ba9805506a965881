"""Paired comparison: against closed forms, SciPy, and the coverage that it promises."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from calib_ebm.calibration import compare, errors
from calib_ebm.calibration.compare import (
    Difference,
    check_same_texts,
    paired_bootstrap,
    paired_over_seeds,
    resolvable,
    spread_over_seeds,
)
from calib_ebm.calibration.estimates import ESTIMATES
from calib_ebm.calibration.intervals import paired_difference, student_quantile
from calib_ebm.errors import InputError

stats = pytest.importorskip("scipy.stats", reason="SciPy, of the extra dev")


def simulated(texts: int, seed: int, *temperatures: float) -> tuple[list[Tensor], Tensor]:
    """A model of mean confidence .95 that is right at T = 1, read at each temperature; labels."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(texts, generator=generator, dtype=torch.float64)
    confidence = 0.5 + 0.5 * uniform ** (1 / 9)
    truth = torch.stack([confidence, 1 - confidence], dim=1)
    swapped = torch.rand(texts, generator=generator) < 0.5
    truth[swapped] = truth[swapped].flip(1)
    labels = torch.multinomial(truth, 1, generator=generator)[:, 0]
    logits = truth.clamp(min=1e-12).log()
    return [(logits / t).softmax(dim=1) for t in temperatures], labels


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_value_is_the_difference_and_swapping_turns_it_round(name: str) -> None:
    (a, b), labels = simulated(150, 0, 0.6, 1.3)
    b = torch.cat([b[:100], b[100:].flip(1)])  # so that accuracy differs too
    there = paired_bootstrap(a, b, labels, name, resamples=200)
    back = paired_bootstrap(b, a, labels, name, resamples=200)
    value = ESTIMATES[name].value
    assert there.value == (value(a, labels, 20) - value(b, labels, 20)).item()
    assert (back.value, back.low, back.high) == pytest.approx(
        (-there.value, -there.high, -there.low), abs=1e-12
    )
    assert back.p_value == there.p_value
    assert there.n == 150
    if name == "brier/uncertainty":  # of the labels alone, so the same for both
        assert there[:4] == (0, 0, 0, 1)
    else:
        assert there.value != 0
        assert there.low < there.value < there.high


def test_of_a_mean_it_is_the_paired_t_interval() -> None:
    (a, b), labels = simulated(800, 1, 0.8, 1.0)
    ours = paired_bootstrap(a, b, labels, "nll", resamples=4000)
    each = errors.nll_each(a, labels), errors.nll_each(b, labels)
    theirs = stats.ttest_rel(*each)
    interval = theirs.confidence_interval(0.95)
    width = interval.high - interval.low
    assert ours.value == pytest.approx((each[0] - each[1]).mean().item())
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.1 * width)
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.03)
    unpaired = stats.ttest_ind(*each).confidence_interval(0.95)
    assert unpaired.high - unpaired.low > 1.5 * (ours.high - ours.low)


def test_zero_is_outside_the_interval_just_where_p_is_below_a_twentieth() -> None:
    """But for the one resample that the p-value counts on top, so that it is never zero."""
    seen = set()
    for seed, cold in product(range(12), (0.5, 0.9)):
        (a, b), labels = simulated(300, seed, cold, 1.0)
        found = paired_bootstrap(a, b, labels, "brier", resamples=400, seed=seed)
        outside = found.low > 0 or found.high < 0
        if abs(found.p_value - 0.05) > 0.01:
            assert outside == (found.p_value < 0.05)
            seen.add(outside)
        assert 0 < found.p_value <= 1
    assert seen == {True, False}


def test_the_same_method_twice_differs_by_nothing() -> None:
    (a,), labels = simulated(60, 0, 1.0)
    assert paired_bootstrap(a, a, labels, "cal/ece") == Difference(0.0, 0.0, 0.0, 1.0, 60)
    assert resolvable(paired_bootstrap(a, a, labels, "cal/ece")) == (False, None, None)


def test_the_ece_s_difference_needs_more_than_rte_and_less_than_2000() -> None:
    """T = .7 against .9 (true difference .020): how often zero is left out, of 60 sets each."""
    resolved, holds = {}, {}
    for texts in (138, 2000):
        found = []
        for seed in range(60):
            (a, b), labels = simulated(texts, seed, 0.7, 0.9)
            found.append(paired_bootstrap(a, b, labels, "cal/ece", resamples=200, seed=seed))
        resolved[texts] = sum(each.low > 0 for each in found)
        holds[texts] = sum(each.low <= 0.0196 <= each.high for each in found)
    assert resolved[138] <= 15
    assert resolved[2000] >= 54
    assert holds[2000] >= 50


def test_under_no_difference_zero_is_left_out_seldom() -> None:
    """Two models of one true Brier score: noise of the same size on different logits."""
    left_out = 0
    for seed in range(200):
        (a,), labels = simulated(400, seed, 1.0)
        generator = torch.Generator().manual_seed(seed)
        noisy = []
        for _ in range(2):
            noise = torch.randn(400, 2, generator=generator, dtype=torch.float64)
            noisy.append((a.log().clamp(min=-20) + 0.5 * noise).softmax(dim=1))
        found = paired_bootstrap(*noisy, labels, "brier", resamples=200, seed=seed)
        left_out += found.low > 0 or found.high < 0
    assert 2 <= left_out <= 20  # 10 expected of 200


# --- How many texts it takes ---


def test_resolvable_scales_with_the_square_of_the_width() -> None:
    assert resolvable(Difference(0.02, -0.02, 0.06, 0.3, n=100)) == (False, 400, 818)
    assert resolvable(Difference(-0.02, -0.06, 0.02, 0.3, n=100)) == (False, 400, 818)
    # One-sided: what counts is the half on zero's side.
    assert resolvable(Difference(0.02, -0.01, 0.9, 0.1, n=100)).needed == 225
    clear = resolvable(Difference(0.04, 0.02, 0.06, 0.001, n=100))
    assert clear.resolved and clear.needed == 25


def test_with_the_texts_it_asks_for_half_of_the_comparisons_are_resolved() -> None:
    """And with those for power four of five."""
    (a, b), labels = simulated(50_000, 0, 0.85, 1.0)
    rough = resolvable(paired_bootstrap(a, b, labels, "nll", resamples=300))
    assert rough.needed is not None and rough.needed_for_power is not None
    for texts, share in ((rough.needed, 0.5), (rough.needed_for_power, 0.8)):
        resolved = 0
        for seed in range(1, 151):
            (c, d), y = simulated(texts, seed, 0.85, 1.0)
            resolved += paired_bootstrap(c, d, y, "nll", resamples=200, seed=seed).low > 0
        assert resolved / 150 == pytest.approx(share, abs=0.15)


# --- Seeds ---


def test_spread_over_seeds_is_student_s_interval() -> None:
    values = [0.031, 0.052, 0.040]
    ours = spread_over_seeds(values)
    theirs = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx(theirs)
    assert paired_difference(values, [0.0] * 3) == pytest.approx(ours)


@pytest.mark.parametrize("values", [[0.1], [], [0.1, math.nan]])
def test_one_seed_has_no_spread(values: list[float]) -> None:
    with pytest.raises(InputError, match="values over seeds"):
        spread_over_seeds(values)


def seeds_of(
    texts: int, seeds: int, of_seed: float, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Runs whose temperature is drawn per seed; a's and b's have the same distribution."""
    set_seed = int(torch.randint(10**9, (), generator=generator))
    draws = torch.randn(2 * seeds, generator=generator) * of_seed
    probs, labels = simulated(texts, set_seed, *draws.exp().tolist())
    return probs[:seeds], probs[seeds:], labels


@pytest.mark.parametrize("of_seed", [0.3, 0.02])
def test_over_seeds_and_texts_the_truth_is_held(of_seed: float) -> None:
    """The truth is no difference; seeds alone, texts alone and resampled seeds are too sure.

    With little between the seeds the texts' share is what matters and with much the seeds'.
    """
    generator = torch.Generator().manual_seed(0)
    held, resampled_seeds = 0, 0
    for seed in range(120):
        a, b, labels = seeds_of(200, 3, of_seed, generator)
        found = paired_over_seeds(a, b, labels, "nll", resamples=100, seed=seed)
        held += found.low <= 0 <= found.high
        each = torch.tensor(
            [
                (errors.nll(x, labels) - errors.nll(y, labels)).item()
                for x, y in zip(a, b, strict=True)
            ]
        )
        drawn = each[torch.randint(3, (400, 3), generator=generator)].mean(dim=1)
        low, high = drawn.quantile(torch.tensor([0.025, 0.975])).tolist()
        resampled_seeds += low <= 0 <= high
    assert held >= 110
    assert resampled_seeds <= 100, held


def test_over_seeds_by_hand() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b, labels = seeds_of(100, 3, 0.2, generator)
    found = paired_over_seeds(a, b, labels, "brier", resamples=2000)
    each_SN = torch.stack(
        [
            errors.brier_each(x, labels) - errors.brier_each(y, labels)
            for x, y in zip(a, b, strict=True)
        ]
    )
    of_texts = each_SN.mean(dim=0).var(unbiased=False).item() / 100
    of_seeds = each_SN.mean(dim=1).var().item() / 3
    degrees = math.floor(2 * ((of_texts + of_seeds) / of_seeds) ** 2)
    half = student_quantile(0.95, degrees) * math.sqrt(of_texts + of_seeds)
    assert found.value == pytest.approx(each_SN.mean().item())
    assert found.high - found.value == pytest.approx(half, rel=0.05)
    theirs = 2 * stats.t.sf(
        abs(found.value) / ((found.high - found.value) / half) / math.sqrt(of_texts + of_seeds),
        degrees,
    )
    assert found.p_value == pytest.approx(theirs, abs=0.02)
    assert (found.n, found.seeds) == (100, 3)


def test_equal_runs_of_equal_seeds_differ_by_nothing() -> None:
    (a,), labels = simulated(40, 0, 1.0)
    found = paired_over_seeds([a, a], [a, a], labels, "cal/ece", resamples=50)
    assert found == Difference(0.0, 0.0, 0.0, 1.0, 40, 2)


def test_the_generator_is_its_own() -> None:
    (a, b), labels = simulated(60, 0, 0.7, 1.0)
    state = torch.get_rng_state()
    once = paired_bootstrap(a, b, labels, "nll", seed=1)
    assert paired_bootstrap(a, b, labels, "nll", seed=1) == once
    assert paired_bootstrap(a, b, labels, "nll", seed=2) != once
    assert torch.equal(torch.get_rng_state(), state)


# --- Bad input ---


def test_other_texts_classes_and_names_are_refused() -> None:
    (a, b), labels = simulated(30, 0, 0.7, 1.0)
    three = torch.cat([b, torch.zeros(30, 1)], dim=1)
    with pytest.raises(InputError, match=r"shape \(30, 2\) against \(29, 2\)"):
        paired_bootstrap(a, b[:29], labels, "nll")
    with pytest.raises(InputError, match=r"shape \(30, 2\) against \(30, 3\)"):
        paired_bootstrap(a, three, labels, "nll")
    with pytest.raises(InputError, match=r"Labels of shape \(29,\) for 30 rows"):
        paired_bootstrap(a, b, labels[:29], "nll")
    with pytest.raises(InputError, match="look like logits"):
        paired_bootstrap(a, b.log(), labels, "nll")
    with pytest.raises(InputError, match="no estimate 'ece'") as caught:
        paired_bootstrap(a, b, labels, "ece")
    assert "cal/ece" in caught.value.allowed
    with pytest.raises(InputError, match="resamples is 1"):
        paired_bootstrap(a, b, labels, "nll", resamples=1)
    with pytest.raises(InputError, match="2 runs of one method against 1"):
        paired_over_seeds([a, a], [b], labels, "nll")
    with pytest.raises(InputError, match="1 runs of one method against 1"):
        paired_over_seeds([a], [b], labels, "nll")


def test_a_task_s_metric_goes_by_its_short_name_too() -> None:
    (a, b), labels = simulated(30, 0, 0.7, 1.0)
    assert paired_bootstrap(a, b, labels, "acc") == paired_bootstrap(a, b, labels, "cls/acc")


def test_tables_of_other_texts_are_told_apart() -> None:
    labels = torch.tensor([0, 1])
    check_same_texts(["a", "b"], ["a", "b"], labels, labels)
    with pytest.raises(InputError, match="One run has 2 texts, the other 1"):
        check_same_texts(["a", "b"], ["a"], labels, labels[:1])
    with pytest.raises(InputError, match="Row 1 is the text 'b' in one run and 'c'"):
        check_same_texts(["a", "b"], ["a", "c"], labels, labels)
    with pytest.raises(InputError, match="'b' has label 1 in one run and 0"):
        check_same_texts(["a", "b"], ["a", "b"], labels, torch.tensor([0, 0]))


def test_many_degrees_are_the_normal_s() -> None:
    assert student_quantile(0.95, compare.MOST_DEGREES) == pytest.approx(1.96, abs=0.02)
