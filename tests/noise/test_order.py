from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.noise.order import NoiseOrder, check_per_text


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 40), st.integers(0, 5))
def test_no_noise_text_twice_in_an_epoch_nor_before_the_bank_is_used_up(
    per_text: int, places: int, more: int, seed: int
) -> None:
    rows = per_text * places + more
    order = NoiseOrder(rows, per_text, places, seed)
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
        return [NoiseOrder(50, 1, 50, seed).at(epoch, place) for place in range(50)]

    assert dealt(0, 0) == dealt(0, 0)
    assert dealt(0, 0) != dealt(0, 1)
    assert dealt(0, 0) != dealt(1, 0)


def test_a_bank_smaller_than_an_epoch_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"holds 79 noise texts.* 8\*10 = 80") as caught:
        NoiseOrder(79, 8, 10, 0)
    assert "noise.bank_epochs" in caught.value.to_do
    assert "noise.per_text" in caught.value.to_do
    assert len(NoiseOrder(80, 8, 10, 0).at(0, 9)) == 8


@pytest.mark.parametrize("per_text", [0, -1, 1.5, None])
def test_k_below_one_is_refused(per_text: object) -> None:
    with pytest.raises(InputError, match=f"noise.per_text \\(K\\) is {per_text}"):
        check_per_text(per_text)  # type: ignore[arg-type]
    assert check_per_text(3) == 3
