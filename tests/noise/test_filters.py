from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from calib_ebm.errors import InputError
from calib_ebm.noise.filters import Sampling, draw_from, filtered_log_probs, filtered_top

NONE = torch.zeros(1, dtype=torch.bool)


def theirs(logits: list[float], banned: list[bool], top_k: int, temperature: float) -> np.ndarray:
    """The same in plain words: sort by (logit, lower id first), keep k, softmax."""
    allowed = [i for i in range(len(logits)) if not banned[i]]
    kept = sorted(allowed, key=lambda i: (-logits[i], i))[: top_k or None]
    out = np.full(len(logits), -np.inf)
    out[kept] = log_softmax(np.asarray([logits[i] for i in kept]) / temperature)
    return out


# Few distinct values, so that ties at the edge of the cut are the rule.
rows = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.booleans()), min_size=1, max_size=9
).filter(lambda row: not all(banned for _, banned in row))


@given(rows, st.integers(0, 10), st.sampled_from([0.5, 1.0, 3.0]))
def test_as_in_plain_words_also_with_ties(
    row: list[tuple[float, bool]], top_k: int, temperature: float
) -> None:
    logits, banned = [x for x, _ in row], [b for _, b in row]
    ours = filtered_log_probs(
        torch.tensor([logits]), Sampling(top_k, temperature), torch.tensor([banned])
    )[0]
    expected = theirs(logits, banned, top_k, temperature)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)
    assert math.isclose(float(ours.exp().sum()), 1.0, abs_tol=1e-6)


def test_what_is_banned_takes_no_place_among_the_k() -> None:
    logits, banned = torch.tensor([[5.0, 1.0, 0.0]]), torch.tensor([[True, False, False]])
    kept = filtered_log_probs(logits, Sampling(top_k=1), banned).exp()
    torch.testing.assert_close(kept, torch.tensor([[0.0, 1.0, 0.0]]))
    control = filtered_log_probs(logits, Sampling(top_k=1), NONE).exp()
    torch.testing.assert_close(control, torch.tensor([[1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("top_k", [0, 3])
def test_evenly_spread_numbers_draw_each_token_at_its_probability(top_k: int) -> None:
    logits_1V = torch.tensor([[0.3, -1.0, 2.0, 0.0, 1.0]])
    banned_1V = torch.tensor([[False, False, False, False, True]])
    size = 20_000
    uniform_B = (torch.arange(size) + 0.5) / size
    sampling = Sampling(top_k)
    top = filtered_top(logits_1V.expand(size, -1), sampling, banned_1V)
    share = torch.bincount(draw_from(top, uniform_B), minlength=5) / size
    exact = filtered_log_probs(logits_1V, sampling, banned_1V).exp()[0]
    torch.testing.assert_close(share, exact, atol=2 / size, rtol=0)


@pytest.mark.parametrize("top_k", [0, 4])
def test_the_last_number_below_one_draws_nothing_impossible(top_k: int) -> None:
    logits_BV = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    banned_V = torch.tensor([False, True, False, False, True, True])
    almost_one_B = torch.full((500,), 1 - 2**-53, dtype=torch.double)
    drawn_B = draw_from(filtered_top(logits_BV, Sampling(top_k), banned_V), almost_one_B)
    assert not banned_V[drawn_B].any()


@pytest.mark.parametrize("bad", [{"top_k": -1}, {"temperature": 0.0}, {"temperature": -2.0}])
def test_filters_that_leave_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"noise.{next(iter(bad))}"):
        Sampling(**bad)  # type: ignore[arg-type]
