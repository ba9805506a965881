from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.noise.masking import (
    DRAWING,
    TUNING,
    check_mask_rate,
    collapse,
    draw_mask,
    stream,
)

MASK = -9


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans())))
def test_each_run_becomes_one_symbol_and_the_rest_stays_in_order(
    tokens: list[tuple[int, bool]],
) -> None:
    ids, masked = [t for t, _ in tokens], [m for _, m in tokens]
    seen = collapse(ids, masked, MASK)
    assert [t for t in seen if t != MASK] == [t for t, m in tokens if not m]
    assert seen.count(MASK) == sum(is_masked for is_masked, _ in groupby(masked))
    assert all((a, b) != (MASK, MASK) for a, b in pairwise(seen))


def test_masks_cover_the_asked_share_of_tokens() -> None:
    share = draw_mask(100_000, 0.4, stream(0, TUNING, 0, 0)).mean()
    standard_error = np.sqrt(0.4 * 0.6 / 100_000)
    assert abs(share - 0.4) < 5 * standard_error


def test_a_place_has_the_same_numbers_whoever_asks_and_every_place_its_own() -> None:
    here = stream(7, TUNING, 3, 11).random(4)
    assert (stream(7, TUNING, 3, 11).random(4) == here).all()
    elsewhere = [(8, TUNING, 3, 11), (7, DRAWING, 3, 11), (7, TUNING, 4, 11), (7, TUNING, 3, 12)]
    for place in elsewhere:
        assert not np.isin(stream(*place).random(4), here).any()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, float("nan"), "0.4", None])
def test_a_rate_that_masks_nothing_or_all_is_refused(rate: object) -> None:
    with pytest.raises(InputError, match=f"noise.mask_rate is {rate}"):
        check_mask_rate(rate)  # type: ignore[arg-type]
    assert check_mask_rate(0.25) == 0.25
