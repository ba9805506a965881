from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calib_ebm.calibration.association import rank_correlation, rank_draws, ranks, spearman
from calib_ebm.errors import InputError

few_values = st.lists(st.integers(0, 4).map(float), min_size=3, max_size=30)


@given(few_values)
def test_ranks_with_ties_are_scipy_s(values: list[float]) -> None:
    ours = ranks(torch.tensor(values, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(ours, stats.rankdata(values), atol=1e-12)


@given(st.data())
def test_the_correlation_is_scipy_s(data: st.DataObject) -> None:
    x = data.draw(few_values)
    y = data.draw(st.lists(st.integers(0, 3).map(float), min_size=len(x), max_size=len(x)))
    ours = spearman(torch.tensor(x), torch.tensor(y))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_by_hand_and_whatever_rises_with_it() -> None:
    # d = (1, 1, 0, 0): 1 - 6 * 2 / (4 * 15)
    x, y = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 1.0, 3.0, 4.0])
    assert spearman(x, y) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman(x.exp(), y) == pytest.approx(spearman(x, y))
    assert spearman(-x, y) == pytest.approx(-spearman(x, y))
    assert spearman(x, y.roll(1)) != pytest.approx(spearman(x, y))  # the control


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    # Of a bivariate normal with Pearson's r, Spearman's is 6 / pi asin(r / 2).
    random = np.random.default_rng(0)
    r, held, sets = 0.5, 0, 120
    truth = 6 / math.pi * math.asin(r / 2)
    for index in range(sets):
        x, other = random.standard_normal((2, 150))
        y = r * x + math.sqrt(1 - r * r) * other
        found = rank_correlation(
            torch.from_numpy(x), torch.from_numpy(y), resamples=200, seed=index
        )
        assert found is not None
        held += found.low <= truth <= found.high
    # Binomial(120, .95): 103 to 120 holds all but a few in ten thousand.
    assert held >= 103


def test_an_interval_is_the_same_again_and_leaves_the_global_generator_alone() -> None:
    x, y = torch.arange(20.0), torch.arange(20.0).flip(0) ** 2
    before = torch.get_rng_state()
    first = rank_correlation(x, y + torch.randn(20, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(before, torch.get_rng_state())
    assert first == rank_correlation(
        x, y + torch.randn(20, generator=torch.Generator().manual_seed(1))
    )
    a, b = (rank_draws(x, x.sin(), resamples=5, seed=seed) for seed in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize(("x", "y"), [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [1.0, 2.0])])
def test_what_has_no_correlation_has_none(x: list[float], y: list[float]) -> None:
    assert rank_correlation(torch.tensor(x), torch.tensor(y)) is None


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(InputError, match="against"):
        rank_correlation(torch.zeros(3), torch.zeros(4))
    with pytest.raises(InputError, match="not finite"):
        rank_correlation(torch.tensor([0.0, math.nan, 1.0]), torch.zeros(3))
