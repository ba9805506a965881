"""Every text once an epoch in training and once in evaluation, whoever takes part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.tokens.order import OnceBatches, Place, StepBatches, TrainOrder


def lengths_of(size: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(3, 60, size).tolist())


def epoch_rows(order: TrainOrder, epoch: int) -> list[list[int]]:
    """Rows of each batch of an epoch."""
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return [[place[0] for place in order.batch(step)] for step in steps]


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_no_text_twice_in_an_epoch_and_only_an_incomplete_batch_left_out(
    texts: int, batch_size: int, seed: int, epoch: int
) -> None:
    order = TrainOrder(lengths_of(texts), batch_size, seed)
    batches = epoch_rows(order, epoch)
    assert {len(batch) for batch in batches} == {min(batch_size, texts)}
    seen = [row for batch in batches for row in batch]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(texts))
    assert texts - len(seen) == texts % order.size


def test_left_out_texts_change_with_the_epoch() -> None:
    order = TrainOrder(lengths_of(23), 4, seed=0)
    left_out = set()
    for epoch in range(30):
        left_out |= set(range(23)) - {row for batch in epoch_rows(order, epoch) for row in batch}
    assert left_out == set(range(23))


def test_places_name_the_epoch_and_the_position_in_it() -> None:
    order = TrainOrder(lengths_of(23), 4, seed=0)
    assert order.steps_per_epoch == 5
    places = [place for step in range(10) for place in order.batch(step)]
    assert [place[1] for place in places] == [0] * 20 + [1] * 20
    assert [place[2] for place in places] == [*range(20), *range(20)]
    assert all(isinstance(place, Place) for place in places)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = lengths_of(64)
    orders = {
        (seed, epoch): str(epoch_rows(TrainOrder(lengths, 8, seed), epoch))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9


def test_a_batch_is_a_function_of_the_step() -> None:
    """Whichever steps were asked for before, and whatever was kept of them."""
    lengths = lengths_of(50)
    order, another = TrainOrder(lengths, 8, 1), TrainOrder(lengths, 8, 1)
    forwards = [order.batch(step) for step in range(30)]
    backwards = [another.batch(step) for step in reversed(range(30))]
    assert forwards == backwards[::-1]
    later = list(StepBatches(TrainOrder(lengths, 8, 1), 17, 30))
    assert later == forwards[17:]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_the_ranks_share_the_batch_that_one_would_have(world: int) -> None:
    order = TrainOrder(lengths_of(50), 8, 0)
    shares = [list(StepBatches(order, 3, 15, rank, world)) for rank in range(world)]
    for step, parts in zip(range(3, 15), zip(*shares, strict=True), strict=True):
        assert {len(part) for part in parts} == {8 // world}
        assert sorted(place for part in parts for place in part) == sorted(order.batch(step))


def test_the_length_of_the_stream_is_that_of_the_whole_training() -> None:
    batches = StepBatches(TrainOrder(lengths_of(50), 8, 0), 3, 15)
    assert len(batches) == 15
    assert len(list(batches)) == 12


def padding(order: TrainOrder) -> int:
    """Places of padding in an epoch."""
    batches = [[order.lengths[row] for row in rows] for rows in epoch_rows(order, 0)]
    return sum(max(lengths) * len(lengths) - sum(lengths) for lengths in batches)


def test_it_pads_less_than_a_plain_shuffle() -> None:
    order = TrainOrder(lengths_of(640), 16, 0)
    plain = np.random.default_rng(0).permutation(order.lengths).reshape(-1, 16)
    shuffled = int((plain.max(axis=1, keepdims=True) - plain).sum())
    assert padding(order) < shuffled / 5


def test_short_and_long_batches_are_mixed() -> None:
    """The control: it is no curriculum from short texts to long ones."""
    order = TrainOrder(lengths_of(640), 16, 0)
    means = [np.mean([order.lengths[row] for row in rows]) for rows in epoch_rows(order, 0)]
    ranks = np.argsort(np.argsort(means))
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 0.5


def test_a_window_of_one_batch_is_a_plain_shuffle() -> None:
    order = TrainOrder(lengths_of(640), 16, 0, window=1)
    means = [np.mean([order.lengths[row] for row in rows]) for rows in epoch_rows(order, 0)]
    # Means of 16 draws from 3 ... 59 spread by 16.4 / 4; sorted ones by 16.4.
    assert np.std(means) < 6
    sorted_means = [
        np.mean([order.lengths[row] for row in rows])
        for rows in epoch_rows(TrainOrder(order.lengths, 16, 0), 0)
    ]
    assert np.std(sorted_means) > 13


def test_lengths_at_are_those_of_the_texts_in_their_places() -> None:
    order = TrainOrder(lengths_of(50), 8, 0)
    for epoch in (0, 1):
        steps = range(epoch * 6, epoch * 6 + 6)
        places = [place for step in steps for place in order.batch(step)]
        assert [order.lengths[row] for row, _, _ in places] == order.lengths_at(epoch).tolist()


def test_fewer_texts_than_a_batch_are_one_batch() -> None:
    order = TrainOrder(lengths_of(5), 8, 0)
    assert (order.size, order.steps_per_epoch) == (5, 1)
    assert sorted(place[0] for place in order.batch(7)) == [0, 1, 2, 3, 4]
    assert {place[1] for place in order.batch(7)} == {7}


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 9), st.integers(1, 12))
def test_evaluation_takes_each_row_once_over_any_number_of_ranks(
    lengths: list[int], batch_size: int, world: int
) -> None:
    ranks = [OnceBatches(lengths, batch_size, rank, world) for rank in range(world)]
    batches = [batch for rank in ranks for batch in rank]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert [len(rank) for rank in ranks] == [len(list(rank)) for rank in ranks]
    sizes = [sum(map(len, rank)) for rank in ranks]
    assert max(sizes) - min(sizes) <= 1
    if batch_size > 1 and min(sizes):
        assert len({len(rank) for rank in ranks}) == 1, "ranks can go in step"


def test_evaluation_keeps_similar_lengths_together() -> None:
    lengths = lengths_of(64)
    batches = list(OnceBatches(lengths, 8))
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(lengths)
    assert list(OnceBatches(lengths, 8)) == batches  # the same again, for a second pass


@pytest.mark.parametrize("window", [1, 50])
def test_the_first_texts_of_a_batch_are_as_long_as_its_others(window: int) -> None:
    """Those that get noise are its first."""
    order = TrainOrder(lengths_of(3200), 8, 0, window)
    lengths = np.array([[order.lengths[row] for row in rows] for rows in epoch_rows(order, 0)])
    first, others = lengths[:, :2].mean(axis=1), lengths[:, 2:].mean(axis=1)
    difference = first - others
    assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5
    # The control: sorted within the batch, as a window leaves them, they are the shortest.
    ordered = np.sort(lengths, axis=1)
    assert (ordered[:, :2].mean(axis=1) <= ordered[:, 2:].mean(axis=1)).all()
    assert difference.std() > 0
