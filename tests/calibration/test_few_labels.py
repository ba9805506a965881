"""What few labels make of a temperature: every draw and size against the estimators themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from calib_ebm.calibration.errors import ece_top_label
from calib_ebm.calibration.few_labels import (
    after_few_labels,
    best_temperatures,
    draws_of,
    sizes_for,
)
from calib_ebm.calibration.temperature import Temperature
from calib_ebm.errors import InputError


def made_up(texts: int, classes: int, sharp: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `sharp` times those that the labels are drawn from."""
    generator = torch.Generator().manual_seed(seed)
    true_NC = 1.5 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels_N = torch.multinomial(true_NC.softmax(dim=1), 1, generator=generator)[:, 0]
    return sharp * true_NC, labels_N


@given(
    st.integers(2, 4),
    st.integers(2, 60),
    st.floats(0.05, 20),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.5, 20.0]),
)
def test_temperatures_at_once_are_those_one_by_one(
    classes: int, texts: int, sharp: float, seed: int, prior: float
) -> None:
    sets = [made_up(texts, classes, sharp, seed + part) for part in range(3)]
    sets = [pair for pair in sets if len(pair[1].unique()) > 1]
    if not sets:
        return
    at_once_R = best_temperatures(
        torch.stack([logits for logits, _ in sets]),
        torch.stack([labels for _, labels in sets]),
        prior,
    )
    for (logits_NC, labels_N), ours in zip(sets, at_once_R, strict=True):
        theirs = Temperature(prior=prior).fit(logits_NC, labels_N).temperature
        assert ours.item() == pytest.approx(theirs, rel=1e-6)


def test_without_a_better_temperature_there_is_none() -> None:
    logits_RNC = torch.zeros(1, 4, 3)
    assert best_temperatures(logits_RNC, torch.tensor([[0, 1, 2, 0]])).tolist() == [1.0]


@pytest.mark.parametrize("classes", [2, 4])
def test_each_draw_is_what_the_estimators_say_of_it(classes: int) -> None:
    logits_NC, labels_N = made_up(130, classes, 2.5)
    sizes = (0, 10, 50)
    found = after_few_labels(logits_NC.float(), labels_N, sizes, draws=7, seed=3, bins=12)
    assert found.measured == 80 and found.ece_SR.shape == (3, 7)
    orders_RN = draws_of(labels_N, (10, 50), 7, 3)
    logits_NC = logits_NC.float().double()
    for draw, order_N in enumerate(orders_RN):
        rest_N = order_N[50:]
        for place, size in enumerate(sizes):
            probs_NC, temperature = logits_NC[rest_N].softmax(dim=1), 1.0
            if size:
                few = Temperature().fit(logits_NC[order_N[:size]], labels_N[order_N[:size]])
                probs_NC, temperature = few.probabilities(logits_NC[rest_N]), few.temperature
            ece = ece_top_label(probs_NC, labels_N[rest_N], 12)
            # Not by the probabilities: labels that ten texts predict without error make some 0.
            nll = cross_entropy(logits_NC[rest_N] / temperature, labels_N[rest_N])
            torch.testing.assert_close(found.ece_SR[place, draw], ece, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found.nll_SR[place, draw], nll, rtol=1e-6, atol=1e-8)


def test_more_labels_bring_the_nll_to_that_of_the_truth() -> None:
    """Its excess is about half a parameter's: 1/(2 n) nats, and 1/2 of it at twice the labels."""
    logits_NC, labels_N = made_up(40_000, 2, 3.0)
    found = after_few_labels(logits_NC, labels_N, (0, 50, 500), draws=300, seed=1)
    best = Temperature().fit(logits_NC, labels_N)
    probs_NC = best.probabilities(logits_NC)
    least = -probs_NC.gather(1, labels_N[:, None]).log().mean()
    excess_S = found.nll_SR.mean(dim=1) - least
    assert excess_S[0] > 0.2  # three times too sure
    assert 500 * excess_S[2].item() == pytest.approx(0.5, abs=0.2)
    assert excess_S[1] > 5 * excess_S[2]


def test_a_prior_of_a_few_texts_keeps_ten_labels_from_doing_harm() -> None:
    """To a classifier that is right as it is; one that is not gets most of what it needs."""
    excess: dict[tuple[float, float], float] = {}
    for sharp in (1.0, 3.0):
        logits_NC, labels_N = made_up(2_000, 2, sharp)
        for prior in (0.0, 4.0):
            few = after_few_labels(logits_NC, labels_N, (0, 10, 1000), draws=200, prior=prior)
            nll_S = few.nll_SR.mean(dim=1)
            excess[sharp, prior] = (nll_S[1] - nll_S[2]).item()
            if sharp == 3.0:  # ten labels help, or do great harm
                assert (nll_S[1] < nll_S[0]) == (prior > 0)
    assert excess[1.0, 4.0] < 0.3 * excess[1.0, 0.0]
    assert excess[3.0, 4.0] < excess[3.0, 0.0]


def test_two_methods_meet_on_the_same_texts() -> None:
    logits_NC, labels_N = made_up(100, 2, 2.0)
    one = after_few_labels(logits_NC, labels_N, (0, 20), draws=9)
    same = after_few_labels(logits_NC, labels_N, (0, 20), draws=9)
    other = after_few_labels(logits_NC, labels_N, (0, 20), draws=9, seed=1)
    twice = after_few_labels(2 * logits_NC, labels_N, (0, 20), draws=9)
    assert torch.equal(one.ece_SR, same.ece_SR) and torch.equal(one.nll_SR, same.nll_SR)
    assert not torch.equal(one.ece_SR, other.ece_SR)
    # What a temperature takes back entirely makes no difference, but for those at a bound.
    torch.testing.assert_close(one.nll_SR[1], twice.nll_SR[1], rtol=1e-6, atol=1e-9)
    assert not torch.allclose(one.nll_SR[0], twice.nll_SR[0])


def test_labels_of_one_class_are_drawn_again_and_a_class_that_is_never_met_is_refused() -> None:
    labels_N = torch.zeros(200, dtype=torch.long)
    labels_N[:10] = 1
    for order_N in draws_of(labels_N, (5, 50), 100, 0):
        assert len(labels_N[order_N[:5]].unique()) == 2
        assert sorted(order_N.tolist()) == list(range(200))
    with pytest.raises(InputError, match="two classes"):
        draws_of(torch.zeros(50, dtype=torch.long), (10,), 5, 0)


@pytest.mark.parametrize("sizes", [(), (-1,), (10,), (5, 11)])
def test_labels_that_leave_nothing_to_measure_are_refused(sizes: tuple[int, ...]) -> None:
    logits_NC, labels_N = made_up(10, 2, 1.0)
    with pytest.raises(InputError, match="fewer labels than there are texts"):
        after_few_labels(logits_NC, labels_N, sizes, draws=3)


def test_parts_of_the_draws_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_NC, labels_N = made_up(60, 3, 2.0)
    whole = after_few_labels(logits_NC, labels_N, (0, 10), draws=11)
    monkeypatch.setattr("calib_ebm.calibration.few_labels.AT_ONCE", 400)
    parts = after_few_labels(logits_NC, labels_N, (0, 10), draws=11)
    torch.testing.assert_close(parts, whole)


def test_sizes_leave_half_of_the_texts() -> None:
    assert sizes_for(20) == (10,)
    assert sizes_for(1_999) == (10, 20, 50, 100, 200, 500)
    assert sizes_for(10**6) == (10, 20, 50, 100, 200, 500, 1000)
