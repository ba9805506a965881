from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.noise.order import NoiseOrder, NoisyTexts, check_per_text


def order_of(
    rows: int,
    per_text: int,
    places: int,
    seed: int,
    lengths: int = 30,
    data_lengths: int = 30,
    noisy: NoisyTexts | None = None,
) -> NoiseOrder:
    """An order for noise and texts of some lengths, texts in another order in each epoch."""

    def text_lengths(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).integers(3, 3 + data_lengths, places)

    noise = np.random.default_rng(seed).integers(3, 3 + lengths, rows)
    return NoiseOrder(noise, text_lengths, per_text, seed, noisy)


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 40), st.integers(0, 5))
def test_no_noise_text_twice_in_an_epoch_nor_before_the_bank_is_used_up(
    per_text: int, places: int, more: int, seed: int
) -> None:
    rows = per_text * places + more
    order = order_of(rows, per_text, places, seed)
    epochs = [[order.at(e, p) for p in range(places)] for e in range(4)]
    flat = [[row for text in epoch for row in text] for epoch in epochs]
    for epoch in flat:
        assert len(set(epoch)) == per_text * places
        assert all(0 <= row < rows for row in epoch)
    lasts = rows // (per_text * places)
    used = [row for epoch in flat[:lasts] for row in epoch]
    assert len(set(used)) == len(used)


def test_every_epoch_and_seed_deals_otherwise() -> None:
    def dealt(seed: int, epoch: int) -> list[list[int]]:
        return [order_of(50, 1, 50, seed).at(epoch, place) for place in range(50)]

    assert dealt(0, 0) == dealt(0, 0)
    assert dealt(0, 0) != dealt(0, 1)
    assert dealt(0, 0) != dealt(1, 0)


def test_the_shortest_noise_of_an_epoch_goes_to_the_shortest_texts() -> None:
    order = order_of(500, 2, 200, seed=1)
    for epoch in range(3):
        text = order._text_lengths(epoch)
        noise = order._noise_lengths_R[[order.at(epoch, place) for place in range(200)]]
        by_length = np.lexsort((noise.mean(axis=1), text))
        assert (np.diff(noise[by_length].reshape(-1)) >= 0).all()
        assert np.corrcoef(text, noise.mean(axis=1))[0, 1] > 0.99
    # The control: dealt without regard to length.
    shuffled = order._noise_lengths_R[np.random.default_rng(0).permutation(500)[:200]]
    assert abs(np.corrcoef(order._text_lengths(0), shuffled)[0, 1]) < 0.3


def test_among_texts_of_one_length_no_part_of_an_epoch_gets_the_longer_noise() -> None:
    """Once it did: ties went by position, and the last batches of an epoch had all long noise."""
    order = order_of(4000, 1, 4000, seed=2, data_lengths=2)
    noise = order._noise_lengths_R[[order.at(0, place)[0] for place in range(4000)]]
    quarters = noise.reshape(4, 1000).mean(axis=1)
    # A quarter's mean has a standard error of .27.
    assert np.ptp(quarters) < 1.4
    in_order = np.argsort(order._text_lengths(0), kind="stable")
    tied = np.empty(4000)
    tied[in_order] = np.sort(noise)
    assert np.ptp(tied.reshape(4, 1000).mean(axis=1)) > 5


def test_a_bank_smaller_than_an_epoch_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"holds 79 noise texts.* 8\*10 = 80") as caught:
        order_of(79, 8, 10, 0)
    assert "noise.bank_epochs" in caught.value.to_do
    assert "noise.per_text" in caught.value.to_do
    assert len(order_of(80, 8, 10, 0).at(0, 9)) == 8


@pytest.mark.parametrize("per_text", [0, -1, 1.5, None])
def test_k_below_one_is_refused(per_text: object) -> None:
    with pytest.raises(InputError, match=f"noise.per_text \\(K\\) is {per_text}"):
        check_per_text(per_text)  # type: ignore[arg-type]
    assert check_per_text(3) == 3


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 6), st.floats(0.01, 1.0))
def test_so_many_texts_of_each_batch_have_noise_and_no_others(
    per_text: int, batch: int, batches: int, share: float
) -> None:
    noisy = NoisyTexts.of_share(share, batch)
    places = batch * batches
    assert noisy.with_noise == max(1, round(share * batch))
    assert noisy.count(places) == len(noisy.places(places)) == noisy.with_noise * batches
    rows = per_text * noisy.count(places)
    order = order_of(rows, per_text, places, seed=3, noisy=noisy)
    dealt = [order.at(0, place) for place in range(places)]
    for start in range(0, places, batch):
        counts = [len(each) for each in dealt[start : start + batch]]
        assert counts == [per_text] * noisy.with_noise + [0] * (batch - noisy.with_noise)
    assert sorted(row for each in dealt for row in each) == list(range(rows))
    with pytest.raises(InputError, match=r"noise\.share"):
        order_of(rows - 1, per_text, places, seed=3, noisy=noisy)


def test_noise_of_a_share_goes_by_the_lengths_of_the_texts_that_get_it() -> None:
    noisy = NoisyTexts.of_share(0.25, 8)
    order = order_of(200, 1, 400, seed=5, noisy=noisy)
    places = noisy.places(400)
    noise = order._noise_lengths_R[[order.at(0, int(place))[0] for place in places]]
    assert np.corrcoef(order._text_lengths(0)[places], noise)[0, 1] > 0.98
    # The control: the texts beside them, which got none.
    assert abs(np.corrcoef(order._text_lengths(0)[places + 2], noise)[0, 1]) < 0.35


@pytest.mark.parametrize("share", [0, -0.1, 1.01, "half", True, float("nan")])
def test_a_share_is_above_none_and_at_most_all(share: object) -> None:
    with pytest.raises(InputError, match=r"noise\.share is"):
        NoisyTexts.of_share(share, 32)  # type: ignore[arg-type]  # as a person may give it
