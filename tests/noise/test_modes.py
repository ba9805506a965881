from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.noise.modes import (
    MODES,
    Half,
    Labelled,
    Lengths,
    Masked,
    MlmFill,
    Unconditional,
    build_mode,
    check_texts,
    fit_text,
)
from calib_ebm.noise.vocabulary import LmText, Symbols

S = Symbols.after(10, classes=2)
ONE = LmText([1, 2, 3], None, 1)
TWO = LmText([1, 2], [3, 4, 5], 0)


def test_targets_hold_the_whole_text_and_its_end() -> None:
    for mode in (Masked(0.4), Unconditional()):
        assert mode.target(ONE, S) == [1, 2, 3, S.end]
        assert mode.target(TWO, S) == [1, 2, S.pair, 3, 4, 5, S.end]
    assert Labelled().target(ONE, S) == [S.labels[1], 1, 2, 3, S.end]
    assert Labelled().target(TWO, S) == [S.labels[0], 1, 2, S.pair, 3, 4, 5, S.end]


@given(st.integers(0, 200))
def test_a_separator_is_never_masked_and_no_run_swallows_it(seed: int) -> None:
    prefix = Masked(0.9).prefix(TWO, S, np.random.default_rng(seed))
    assert prefix.count(S.pair) == 1
    a, b = prefix[: prefix.index(S.pair)], prefix[prefix.index(S.pair) + 1 :]
    assert a.count(S.mask) <= 1
    assert b.count(S.mask) <= 2  # a run on each side of what may still be seen
    assert [t for t in a if t != S.mask] == [t for t in TWO.ids_a if t in a]


def test_almost_no_masking_leaves_the_text_and_almost_all_one_mask_a_half() -> None:
    assert Masked(1e-12).prefix(TWO, S, np.random.default_rng(0)) == [1, 2, S.pair, 3, 4, 5]
    assert Masked(1 - 1e-12).prefix(TWO, S, np.random.default_rng(0)) == [S.mask, S.pair, S.mask]


def test_half_masks_each_half_about_as_often() -> None:
    first = [S.mask, S.pair, 3, 4, 5]
    second = [1, 2, S.pair, S.mask]
    seen = [Half().prefix(TWO, S, np.random.default_rng(seed)) for seed in range(400)]
    assert all(prefix in (first, second) for prefix in seen)
    assert abs(seen.count(first) - 200) < 5 * 10  # five standard deviations of 400 coins


def test_half_needs_pairs() -> None:
    with pytest.raises(InputError, match="single texts"):
        check_texts(Half(), pairs=False, task="sst2")
    check_texts(Half(), pairs=True, task="rte")
    check_texts(Masked(0.4), pairs=False, task="sst2")


def test_what_is_given_to_modes_without_a_source() -> None:
    for mode in (Unconditional(), Labelled()):
        assert mode.prefix(ONE, S, np.random.default_rng(0)) == []
        assert not mode.uses_source


def test_filling_in_masks_both_halves() -> None:
    a, b = MlmFill(0.5).slots(TWO, np.random.default_rng(1))
    assert (len(a), len(b)) == (2, 3)
    assert len(MlmFill(0.5).slots(ONE, np.random.default_rng(1))[1]) == 0


@given(st.integers(0, 12), st.integers(0, 12), st.integers(2, 20))
def test_a_pair_is_cut_from_the_end_of_its_longer_half(a: int, b: int, budget: int) -> None:
    cut = fit_text(LmText(list(range(a)), list(range(100, 100 + b)), 0), budget)
    assert cut.ids_b is not None
    size_a, size_b = len(cut.ids_a), len(cut.ids_b)
    assert size_a + size_b == min(a + b, budget)
    assert cut.ids_a == list(range(size_a))
    assert cut.ids_b == list(range(100, 100 + size_b))
    if a + b > budget:
        # Only when the longer half has come down to the shorter one is that cut, too.
        assert abs(size_a - size_b) <= 1 or (size_a == a) != (size_b == b)


def test_texts_that_fit_the_budget_fit_prefix_and_target() -> None:
    lengths = Lengths(prefix=6, target=6)
    for text, mode in ((ONE, Labelled()), (TWO, Masked(0.4)), (TWO, Labelled())):
        pairs = text.ids_b is not None
        long = LmText(text.ids_a * 9, text.ids_b and text.ids_b * 9, text.label)
        cut = fit_text(long, lengths.budget(pairs, mode))
        assert len(mode.target(cut, S)) <= 6
        assert len(Masked(1e-12).prefix(cut, S, np.random.default_rng(0))) <= 6


def test_modes_are_a_closed_table() -> None:
    for name in MODES:
        assert build_mode({"mode": name, "mask_rate": 0.3, "context": 4}).to_plain()["name"] == name
    assert build_mode({"mode": "masked", "mask_rate": 0.3}) == Masked(0.3)
    with pytest.raises(InputError, match=r"'os\.system'"):
        build_mode({"mode": "os.system", "mask_rate": 0.3})
    with pytest.raises(InputError, match=r"mask_rate is 1\.0"):
        build_mode({"mode": "masked", "mask_rate": 1.0})
