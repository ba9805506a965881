"""Risk and coverage: by all orders of equal confidences, by hand, and the papers' limit."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration.selective import aurc, e_aurc, risk_coverage
from calib_ebm.errors import InputError


def sure(confidences: list[float], right: list[int]) -> tuple[Tensor, Tensor]:
    confidence = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([confidence, 1 - confidence], dim=1), 1 - torch.tensor(right)


def in_order(wrong: list[int]) -> float:
    """AURC of errors in the order of falling confidence."""
    return sum(sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)) / len(wrong)


def over_all_orders(confidences: list[float], right: list[int]) -> float:
    """The mean over every order of the texts that keeps confidences falling."""
    found = []
    for order in permutations(range(len(right))):
        kept = [confidences[i] for i in order]
        if kept == sorted(kept, reverse=True):
            found.append(in_order([1 - right[i] for i in order]))
    return sum(found) / len(found)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.6, 0.75, 0.9]), st.integers(0, 1)), min_size=1, max_size=7
    )
)
def test_aurc_is_the_mean_over_the_orders_of_equal_confidences(
    texts: list[tuple[float, int]],
) -> None:
    confidences, right = [c for c, _ in texts], [r for _, r in texts]
    expected = over_all_orders(confidences, right)
    assert aurc(*sure(confidences, right)).item() == pytest.approx(expected, abs=1e-12)
    best = in_order(sorted(1 - r for r in right))
    excess = e_aurc(*sure(confidences, right)).item()
    assert excess == pytest.approx(expected - best, abs=1e-12)


def test_the_best_and_the_worst_ranking() -> None:
    confidences = [0.95, 0.9, 0.8, 0.7, 0.6]
    best, worst = [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]
    assert aurc(*sure(confidences, best)).item() == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert e_aurc(*sure(confidences, best)).item() == 0
    by_hand = (1 + 1 + 2 / 3 + 2 / 4 + 2 / 5) / 5
    assert aurc(*sure(confidences, worst)).item() == pytest.approx(by_hand)


def test_the_papers_formula_of_the_best_is_the_limit() -> None:
    texts, rate = 20_000, 0.1
    right = [1] * round(texts * (1 - rate)) + [0] * round(texts * rate)
    confidences = torch.linspace(0.99, 0.6, texts).tolist()
    limit = rate + (1 - rate) * math.log(1 - rate)
    assert aurc(*sure(confidences, right)).item() == pytest.approx(limit, abs=1e-4)


def test_equal_confidences_have_the_error_rate_and_a_random_order_nearly() -> None:
    assert aurc(*sure([0.8] * 10, [1] * 7 + [0] * 3)).item() == pytest.approx(0.3)
    generator = torch.Generator().manual_seed(0)
    confidences = (0.5 + torch.rand(5000, generator=generator, dtype=torch.float64) / 2).tolist()
    right = (torch.rand(5000, generator=generator) < 0.7).long().tolist()
    assert aurc(*sure(confidences, right)).item() == pytest.approx(0.3, abs=0.03)


def test_any_rising_function_of_the_confidence_leaves_it() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(100, 2, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    sharp, soft = ((logits / t).softmax(dim=1) for t in (0.5, 2.0))
    assert aurc(sharp, labels).item() == pytest.approx(aurc(soft, labels).item(), abs=1e-12)
    assert aurc(sharp, labels).item() != pytest.approx(aurc(sharp.flip(1), labels).item(), abs=0.05)


def test_the_curve_by_hand() -> None:
    curve = risk_coverage(*sure([0.9, 0.8, 0.8, 0.6], [1, 0, 1, 0]))
    assert curve.confidence_U.tolist() == [0.9, 0.8, 0.6]
    assert curve.coverage_U.tolist() == [1 / 4, 3 / 4, 1]
    assert curve.risk_U.tolist() == pytest.approx([0, 1 / 3, 2 / 4])


def test_all_right_and_all_wrong() -> None:
    probs = torch.eye(2).double()
    assert aurc(probs, torch.tensor([0, 1])).item() == 0
    assert aurc(probs, torch.tensor([1, 0])).item() == pytest.approx(1)
    assert e_aurc(probs, torch.tensor([1, 0])).item() == pytest.approx(0, abs=1e-15)


def test_bad_input() -> None:
    probs, labels = sure([0.9, 0.8], [1, 0])
    for figure in (aurc, e_aurc, risk_coverage):
        with pytest.raises(InputError, match="look like logits"):
            figure(probs.log(), labels)
        with pytest.raises(InputError, match="label of row 1 is 2"):
            figure(probs, torch.tensor([0, 2]))
