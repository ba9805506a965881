"""PosCal's bins, table and distances, counted by hand and held against torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.poscal import (
    DISTANCES,
    PosCal,
    bin_counts,
    bins_of,
    looked_up,
    poscal_distance,
    table_of,
)

PROBS_BC = torch.tensor([[0.1, 0.9], [0.15, 0.85], [0.7, 0.3], [1.0, 0.0]])
LABEL_B = torch.tensor([1, 0, 0, 0])


def test_edges_belong_to_the_bin_on_their_right_and_1_to_the_last() -> None:
    edges = torch.arange(0, 5) / 4  # exact in binary
    assert bins_of(edges, 4).tolist() == [0, 1, 2, 3, 3]
    assert bins_of(torch.tensor([math.nan, 0.2]), 4).tolist() == [0, 0]
    assert bins_of(torch.tensor([0.0, 1.0]), 1).tolist() == [0, 0]


def test_the_table_by_hand() -> None:
    counts = bin_counts(PROBS_BC, LABEL_B, 4)
    # Of class 0: two texts in [0, .25), one of them of the class; .7 in [.5, .75); 1 in the last.
    assert counts[0].tolist() == [[2, 0, 1, 1], [1, 1, 0, 2]]
    assert counts[1].tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]
    table_CM = table_of(counts)
    assert table_CM.tolist() == [[1 / 2, 0, 1, 1], [0, 0, 0, 1 / 2]]
    target_BC = looked_up(table_CM, PROBS_BC)
    assert target_BC.tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0], [1, 0]]


@st.composite
def sets(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    size, classes = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    logits = draw(st.lists(st.floats(-9, 9), min_size=size * classes, max_size=size * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
    logits_BC = torch.tensor(logits, dtype=torch.float64).view(size, classes)
    return logits_BC, torch.tensor(labels), draw(st.integers(1, 21))


@given(sets())
def test_counts_of_parts_add_up_and_are_those_of_a_loop(given_: tuple[Tensor, Tensor, int]) -> None:
    logits_BC, label_B, bins = given_
    probs_BC = logits_BC.softmax(dim=-1)
    counts = bin_counts(probs_BC, label_B, bins)
    parts = bin_counts(probs_BC[::2], label_B[::2], bins) + bin_counts(
        probs_BC[1::2], label_B[1::2], bins
    )
    assert torch.equal(counts, parts)
    by_hand = torch.zeros_like(counts)
    for probs, label in zip(probs_BC.tolist(), label_B.tolist(), strict=True):
        for c, p in enumerate(probs):
            place = min(int(p * bins), bins - 1)
            by_hand[0, c, place] += 1
            by_hand[1, c, place] += label == c
    assert torch.equal(counts, by_hand)
    assert (table_of(counts) <= 1).all() and counts[0].sum() == logits_BC.numel()


@given(sets())
def test_kl_is_that_of_torch_where_the_target_is_a_distribution(
    given_: tuple[Tensor, Tensor, int],
) -> None:
    logits_BC, _, _ = given_
    target_BC = logits_BC.roll(1, dims=1).softmax(dim=-1)
    theirs = kl_divergence(Categorical(target_BC), Categorical(logits=logits_BC)).mean()
    torch.testing.assert_close(poscal_distance(logits_BC, target_BC, "kl"), theirs)


def test_distances_by_hand() -> None:
    logits_BC = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    target_BC = torch.tensor([[0.5, 0.0], [0.5, 1.0]])
    kl = (0.5 * math.log(0.5 / 0.25) + 0 + 0 + 1 * math.log(1 / 0.5)) / 2
    mse = (0.25**2 + 0.75**2 + 0 + 0.5**2) / 2
    for distance, expected in (("kl", kl), ("mse", mse), ("rmse", math.sqrt(mse))):
        ours = poscal_distance(logits_BC, target_BC, distance)
        assert ours.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_is_0_and_flat_where_nothing_is_to_be_moved(distance: str) -> None:
    logits_BC = torch.tensor([[300.0, 0.0]], requires_grad=True)  # a softmax of exactly 1 and 0
    ours = poscal_distance(logits_BC, torch.tensor([[1.0, 0.0]]), distance)
    ours.backward()
    assert ours.item() == 0
    assert logits_BC.grad is not None and logits_BC.grad.abs().max() == 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_the_values_with_the_table_held(distance: str) -> None:
    loss = PosCal(3, 0.7, distance).double()
    logits_BC = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    label_B = torch.tensor([0, 1, 2, 2, 0])
    loss.refresh(bin_counts(torch.rand(40, 3).softmax(-1), torch.randint(3, (40,)), 20))
    assert torch.autograd.gradcheck(lambda z: loss(z, label_B).total, (logits_BC,))
    assert not loss.table_CM.requires_grad


@pytest.mark.parametrize("distance", DISTANCES)
def test_at_weight_0_or_without_a_table_it_is_the_cross_entropy(distance: str) -> None:
    logits_BC, label_B = PROBS_BC[:3].log(), LABEL_B[:3]
    counts = bin_counts(PROBS_BC, LABEL_B, 20)
    expected = cross_entropy(logits_BC, label_B)
    off, on = PosCal(2, 0.0, distance), PosCal(2, 1.0, distance)
    off.refresh(counts)
    torch.testing.assert_close(off(logits_BC, label_B).total, expected)
    before = on(logits_BC, label_B)
    torch.testing.assert_close(before.total, expected)
    assert before.further["poscal"].item() == 0
    on.refresh(counts)
    after = on(logits_BC, label_B)
    assert abs(after.total - expected) > 1e-3
    torch.testing.assert_close(after.total, expected + after.further["poscal"])


def test_only_training_leaves_counts_and_the_state_holds_all() -> None:
    loss = PosCal(2, bins=4)
    loss.eval()(PROBS_BC.log(), LABEL_B)
    assert loss.batch_counts is None
    loss.train()(PROBS_BC.clamp(min=1e-9).log(), LABEL_B)
    assert loss.batch_counts is not None
    assert torch.equal(loss.batch_counts, bin_counts(PROBS_BC, LABEL_B, 4))
    loss.seen_2CM += loss.batch_counts
    loss.refresh(loss.seen_2CM)
    other = PosCal(2, bins=4)
    other.load_state_dict(loss.state_dict())
    logits_BC = torch.randn(5, 2)
    label_B = torch.tensor([0, 1, 1, 0, 1])
    assert torch.equal(other(logits_BC, label_B).total, loss(logits_BC, label_B).total)
    assert torch.equal(other.seen_2CM, loss.seen_2CM)


def test_following_the_distance_calibrates() -> None:
    """An overconfident softmax over coin tosses is drawn to what the table says: a half."""
    loss = PosCal(2, 1.0, "mse")
    label_B = torch.tensor([0, 1] * 50)
    scale = torch.tensor(3.0, requires_grad=True)
    sign_BC = torch.tensor([[1.0, -1.0]]).repeat(100, 1)
    optimizer = torch.optim.SGD([scale], lr=0.5)
    for _ in range(400):
        logits_BC = scale * sign_BC
        loss.refresh(bin_counts(logits_BC.softmax(-1), label_B, 20))
        distance = loss(logits_BC, label_B).further["poscal"]
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
    assert abs((scale * sign_BC).softmax(-1)[0, 0] - 0.5) < 0.01


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"poscal_weight": -1}, "loss.poscal_weight is -1"),
        ({"distance": "tv"}, "kl, mse, rmse"),
        ({"table": "stale"}, "recent, rescored"),
        ({"bins": 0}, "loss.bins is 0"),
        ({"bins": 2.5}, "a whole number from 1"),
        ({"refreshes_per_epoch": 0}, "a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as refused:
        PosCal(2, **settings)  # type: ignore[arg-type]  # on purpose
    assert said in str(refused.value)
