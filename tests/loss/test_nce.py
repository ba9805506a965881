"""The NCE loss against its numbers, its naive form, its gradient and its optimum."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.loss.nce import nce_accuracy, nce_loss, told_apart

P_DATA = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
P_NOISE = P_DATA.flip(0)


def expected_loss(energy_X: Tensor, p_data_X: Tensor, p_noise_X: Tensor, k: int) -> Tensor:
    """The loss over all of an enumerable space, each text as often as its probability says.

    `nce_loss` of one text and K equal noise texts is softplus(E + log K) + K softplus(-E' - log K):
    the data term is read off with noise energies so high that theirs vanishes, and the reverse.
    """
    never = torch.full((1,), 1e4, dtype=energy_X.dtype)
    data_X = torch.stack([nce_loss(e.view(1), never.expand(1, k)) for e in energy_X])
    noise_X = torch.stack([nce_loss(-never, e.view(1, 1).expand(1, k)) for e in energy_X])
    return p_data_X @ data_X + p_noise_X @ noise_X


def naive_loss(energy_data_B: Tensor, energy_noise_SK: Tensor) -> Tensor:
    """The same written down as it is read: log(1 + K e^E) and log(1 + e^-E / K)."""
    k = energy_noise_SK.shape[1]
    data_B = torch.log(1 + k * torch.exp(energy_data_B))
    noise_B = torch.log(1 + torch.exp(-energy_noise_SK) / k).sum(dim=1)
    return (data_B + noise_B).mean()


def test_the_numbers_of_the_method_with_one_noise_text() -> None:
    zero_X = torch.zeros(4, dtype=torch.float64)
    best_X = -torch.log(P_DATA / P_NOISE)
    assert best_X.tolist() == pytest.approx([-1.386294, -0.405465, 0.405465, 1.386294], abs=1e-6)
    assert expected_loss(zero_X, P_DATA, P_NOISE, 1).item() == pytest.approx(1.386294361, abs=1e-9)
    assert expected_loss(best_X, P_DATA, P_NOISE, 1).item() == pytest.approx(1.173414091, abs=1e-9)
    for move in (0.1, -0.1):  # the control: it is a minimum, and a strict one
        assert expected_loss(best_X + move, P_DATA, P_NOISE, 1).item() > 1.1735


def test_the_numbers_of_the_method_with_eight_noise_texts_far_out() -> None:
    far_B, far_BK = torch.full((1,), 200.0), torch.full((1, 8), -200.0)
    silent_B, silent_BK = torch.full((1,), -1e4), torch.full((1, 8), 1e4)
    assert nce_loss(far_B, silent_BK).item() == pytest.approx(202.0794415, rel=1e-6)
    assert nce_loss(silent_B, far_BK).item() == pytest.approx(8 * 197.9205585, rel=1e-6)
    assert torch.isfinite(nce_loss(far_B, far_BK))
    # The control: the form that is read off the formula has left the numbers of float32 by here.
    assert torch.isinf(naive_loss(far_B, silent_BK))
    assert torch.isinf(naive_loss(silent_B, far_BK))


ENERGIES = st.floats(-25, 25)


@given(
    st.integers(1, 5).flatmap(
        lambda k: st.lists(
            st.tuples(ENERGIES, st.lists(ENERGIES, min_size=k, max_size=k)), min_size=1, max_size=4
        )
    )
)
def test_the_stable_form_is_the_naive_one_where_that_is_finite(
    rows: list[tuple[float, list[float]]],
) -> None:
    data_B = torch.tensor([data for data, _ in rows], dtype=torch.float64)
    noise_BK = torch.tensor([noise for _, noise in rows], dtype=torch.float64)
    ours, naive = nce_loss(data_B, noise_BK), naive_loss(data_B, noise_BK)
    torch.testing.assert_close(ours, naive, rtol=1e-8, atol=1e-8)


FAR = st.floats(-1e30, 1e30)


@given(FAR, FAR, st.integers(1, 16))
@example(90.0, -90.0, 1)
def test_far_energies_give_a_finite_loss_and_gradient(data: float, noise: float, k: int) -> None:
    data_B = torch.tensor([data], requires_grad=True)
    noise_BK = torch.full((1, k), noise, requires_grad=True)
    loss = nce_loss(data_B, noise_BK)
    loss.backward()
    assert torch.isfinite(loss)
    assert data_B.grad is not None
    assert noise_BK.grad is not None
    assert 0 <= data_B.grad.item() <= 1
    assert bool(((noise_BK.grad >= -1) & (noise_BK.grad <= 0)).all())


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_gradient_is_the_formula(k: int) -> None:
    energy_X = torch.tensor([-2.0, -0.3, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    expected_loss(energy_X, P_DATA, P_NOISE, k).backward()
    log_k = math.log(k)
    with torch.no_grad():
        data_X = P_DATA * torch.sigmoid(energy_X + log_k)
        noise_X = k * P_NOISE * torch.sigmoid(-energy_X - log_k)
    torch.testing.assert_close(energy_X.grad, data_X - noise_X, rtol=1e-9, atol=1e-9)
    without_k_X = P_DATA * torch.sigmoid(energy_X) - k * P_NOISE * torch.sigmoid(-energy_X)
    if k > 1:  # the control: K counts
        assert (energy_X.grad - without_k_X).abs().max() > 0.05


@pytest.mark.parametrize("k", [1, 2, 8])
def test_the_optimum_is_learned_on_an_enumerable_distribution(k: int) -> None:
    """A free energy per text, trained on data and noise in their true shares: E* = -log(P_D/P_N).

    Ten observed texts and their K noise texts hold every text as often as P_D and P_N say, so that
    the batch is the expectation, and what is learned from it is exact.
    """
    data_B = torch.repeat_interleave(torch.arange(4), (10 * P_DATA).round().long())
    noise_N = torch.repeat_interleave(torch.arange(4), (10 * k * P_NOISE).round().long())
    shuffle = torch.randperm(10 * k, generator=torch.Generator().manual_seed(k))
    noise_BK = noise_N[shuffle].view(10, k)
    energy_X = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([energy_X], lr=4.0)
    for _ in range(300):
        optimizer.zero_grad()
        nce_loss(energy_X[data_B], energy_X[noise_BK]).backward()
        optimizer.step()
    best_X = -torch.log(P_DATA / P_NOISE)
    torch.testing.assert_close(energy_X.detach(), best_X, rtol=0, atol=1e-6)


def test_the_mean_is_over_texts_and_the_sum_over_their_noise() -> None:
    data_B = torch.tensor([0.3, -1.0])
    noise_BK = torch.tensor([[0.1, 2.0, -0.4], [1.0, 0.0, -3.0]])
    log_3 = math.log(3)

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    first = softplus(0.3 + log_3) + sum(softplus(-e - log_3) for e in (0.1, 2.0, -0.4))
    second = softplus(-1.0 + log_3) + sum(softplus(-e - log_3) for e in (1.0, 0.0, -3.0))
    assert nce_loss(data_B, noise_BK).item() == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_precision_of_the_input_is_kept(dtype: torch.dtype) -> None:
    data_B, noise_BK = torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    loss = nce_loss(data_B.to(dtype), noise_BK.to(dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(nce_loss(data_B, noise_BK).item(), rel=2e-2)


@pytest.mark.parametrize(
    ("data_shape", "noise_shape"),
    [
        ((4,), (4,)),
        ((4,), (5, 1)),
        ((4, 1), (4, 1)),
        ((), (4, 1)),
        ((4,), (4, 1, 1)),
    ],
)
def test_other_shapes_are_refused_and_named(
    data_shape: tuple[int, ...], noise_shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"\(B,\) for data and \(S, K\) for noise") as refused:
        nce_loss(torch.zeros(data_shape), torch.zeros(noise_shape))
    assert str(data_shape) in str(refused.value)
    assert str(noise_shape) in str(refused.value)


def test_no_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="K = 0"):
        nce_loss(torch.zeros(4), torch.zeros(4, 0))


def test_told_apart_at_the_log_odds() -> None:
    """With K = 4 a text is taken for data below -log 4: noise is four times as frequent."""
    edge = -math.log(4)
    energy = torch.tensor([edge - 0.01, edge + 0.01, 0.0])
    as_data, as_noise = told_apart(energy, energy, 4)
    assert as_data.tolist() == [1, 0, 0]
    assert as_noise.tolist() == [0, 1, 1]
    as_data, _ = told_apart(energy, energy, 1)  # the control: with K = 1 the edge is at 0
    assert as_data.tolist() == [1, 1, 0]


def test_numbers_of_data_and_noise_may_differ() -> None:
    as_data, as_noise = told_apart(torch.tensor([-1.0]), torch.tensor([1.0, -1.0, 2.0]), 1)
    assert as_data.tolist() == [1]
    assert as_noise.tolist() == [1, 0, 1]


@pytest.mark.parametrize("k", [1, 8])
def test_a_blind_energy_is_right_half_the_time(k: int) -> None:
    assert nce_accuracy(torch.zeros(5), torch.zeros(5, k)).item() == 0.5
    assert nce_accuracy(torch.full((5,), -9.0), torch.full((5, k), 9.0)).item() == 1.0
    assert nce_accuracy(torch.full((5,), 9.0), torch.full((5, k), -9.0)).item() == 0.0


@pytest.mark.parametrize("k", [1, 3])
def test_the_mean_over_all_parts_of_the_noise_is_the_whole_loss(k: int) -> None:
    """Noise for S of B texts: an estimate without bias, of the value and of the gradient."""
    torch.manual_seed(0)
    data_B = torch.randn(4, dtype=torch.float64, requires_grad=True)
    noise_BK = torch.randn(4, k, dtype=torch.float64, requires_grad=True)
    parts = torch.stack([nce_loss(data_B, noise_BK[list(s)]) for s in combinations(range(4), 2)])
    whole = nce_loss(data_B, noise_BK)
    torch.testing.assert_close(parts.mean(), whole, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(parts.mean(), (data_B, noise_BK))
    theirs = torch.autograd.grad(whole, (data_B, noise_BK))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    # The control: single parts are something else.
    assert parts.std() > 0.01
