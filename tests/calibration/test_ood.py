"""In against out of distribution: scikit-learn, all pairs, ties, and the intervals' meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.calibration.intervals import Estimate
from calib_ebm.calibration.ood import auroc, fpr_at_tpr, scores, separation
from calib_ebm.errors import InputError

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn, of the extra dev")

# Few distinct values, so that most sets have ties within and across the two kinds.
SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


@given(inside=SCORES, outside=SCORES, tpr=st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_as_scikit_learn_with_ties(inside: list[float], outside: list[float], tpr: float) -> None:
    truth = [1] * len(inside) + [0] * len(outside)
    both = inside + outside
    ours = auroc(torch.tensor(inside), torch.tensor(outside)).item()
    assert ours == pytest.approx(sklearn.roc_auc_score(truth, both), abs=1e-12)
    fpr, tprs, _ = sklearn.roc_curve(truth, both, drop_intermediate=False)
    expected = fpr[np.argmax(tprs >= tpr - 1e-12)]
    ours = fpr_at_tpr(torch.tensor(inside), torch.tensor(outside), tpr).item()
    assert ours == pytest.approx(expected, abs=1e-12)


@given(inside=SCORES, outside=SCORES)
def test_auroc_over_all_pairs_and_turned_round(inside: list[float], outside: list[float]) -> None:
    a, b = torch.tensor(inside), torch.tensor(outside)
    pairs = a[:, None] - b
    by_pairs = (pairs > 0).double().mean() + (pairs == 0).double().mean() / 2
    assert auroc(a, b).item() == pytest.approx(by_pairs.item(), abs=1e-12)
    assert auroc(b, a).item() == pytest.approx(1 - by_pairs.item(), abs=1e-12)
    assert auroc(a.exp(), b.exp()).item() == pytest.approx(by_pairs.item(), abs=1e-12)


def test_ties_broken_by_order_would_be_another_figure() -> None:
    same = torch.full((10,), 0.5)
    assert auroc(same, same).item() == 0.5
    assert fpr_at_tpr(same, same).item() == 1  # no threshold parts them


def test_apart_and_the_wrong_way_round() -> None:
    high, low = torch.arange(10.0) + 20, torch.arange(10.0)
    assert (auroc(high, low).item(), fpr_at_tpr(high, low).item()) == (1, 0)
    assert (auroc(low, high).item(), fpr_at_tpr(low, high).item()) == (0, 1)


def test_whole_texts_are_let_in() -> None:
    """19 of 20 are 95%: the lowest of those inside may be left out, and of 19 none may."""
    twenty = torch.arange(1.0, 21)
    assert fpr_at_tpr(twenty, torch.tensor([1.5])).item() == 0
    assert fpr_at_tpr(twenty[:19], torch.tensor([1.5])).item() == 1


def test_neither_depends_on_the_ratio_of_the_two() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(50, generator=generator) + 1
    outside = torch.randn(30, generator=generator)
    once, often = separation(inside, outside), separation(inside, outside.repeat(10))
    assert often.auroc.value == pytest.approx(once.auroc.value)
    assert often.fpr.value == pytest.approx(once.fpr.value)
    assert (once.ratio, often.ratio) == ("50:30 (1:0.60)", "50:300 (1:6.00)")
    assert once.auroc.high - once.auroc.low > often.auroc.high - often.auroc.low


def test_the_interval_of_auroc_is_delong_s_width() -> None:
    """Two normals apart by one: AUROC Phi(1 / sqrt 2) = .760; Hanley and McNeil's error."""
    generator = torch.Generator().manual_seed(1)
    covered, widths = 0, []
    truth = 0.5 * (1 + math.erf(0.5))
    for seed in range(100):
        inside = torch.randn(80, generator=generator) + 1
        outside = torch.randn(60, generator=generator)
        found = separation(inside, outside, resamples=200, seed=seed).auroc
        covered += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    q1, q2 = truth / (2 - truth), 2 * truth**2 / (1 + truth)
    variance = truth * (1 - truth) + 79 * (q1 - truth**2) + 59 * (q2 - truth**2)
    error = math.sqrt(variance / (80 * 60))
    assert sum(widths) / 100 == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert covered >= 88


def test_a_single_text_of_each_kind() -> None:
    found = separation(torch.tensor([2.0]), torch.tensor([1.0]), resamples=10)
    assert found.auroc == Estimate(1, 1, 1)
    assert found.fpr == Estimate(0, 0, 0)


def test_the_generator_is_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(20, generator=generator) + 1, torch.randn(20, generator=generator)
    state = torch.get_rng_state()
    assert separation(a, b, seed=1) == separation(a, b, seed=1) != separation(a, b, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_score_is_high_inside() -> None:
    sure, unsure = torch.tensor([[0.98, 0.01, 0.01]]), torch.tensor([[0.4, 0.3, 0.3]])
    inside, outside = scores(sure, torch.tensor([-5.0])), scores(unsure, torch.tensor([3.0]))
    assert list(inside) == ["energy", "max_prob", "entropy", "margin"]
    assert list(scores(sure)) == ["max_prob", "entropy", "margin"]
    for name in inside:
        assert inside[name].item() > outside[name].item(), name
    assert outside["max_prob"].item() == pytest.approx(0.4)
    assert outside["margin"].item() == pytest.approx(0.1)
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.3))
    assert outside["entropy"].item() == pytest.approx(-entropy)
    assert inside["energy"].item() == 5
    assert scores(torch.eye(2))["entropy"].tolist() == [0, 0]


def test_bad_input() -> None:
    good, empty = torch.tensor([1.0, 2.0]), torch.tensor([])
    with pytest.raises(InputError, match="scores inside are"):
        auroc(empty, good)
    with pytest.raises(InputError, match="scores outside are"):
        fpr_at_tpr(good, empty)
    with pytest.raises(InputError, match="scores outside of row 1 are not finite"):
        separation(good, torch.tensor([1.0, math.nan]))
    with pytest.raises(InputError, match=r"scores inside are torch\.int64"):
        auroc(torch.tensor([1, 2]), good)
    with pytest.raises(InputError, match="tpr is 95"):
        fpr_at_tpr(good, good, 95)
    with pytest.raises(InputError, match="resamples is 1"):
        separation(good, good, resamples=1)
    with pytest.raises(InputError, match="look like logits"):
        scores(torch.tensor([[2.0, -1.0]]))
    with pytest.raises(InputError, match="energies of row 0"):
        scores(torch.eye(2), torch.tensor([math.inf, 0.0]))
