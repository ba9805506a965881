"""Dropout by lanes: torch's in distribution, exact in mean and gradient, and repeatable."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from calib_ebm.energy import dropout
from calib_ebm.energy.dropout import LaneDropout, drop, exchange_dropout

SIZE = 400_003  # not a multiple of a draw's four lanes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_should_be(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(SIZE, dtype=dtype), p)
    share = float((dropped == 0).double().mean())
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / SIZE)
    # Each of the four lanes alone, and neighbours apart.
    lanes = (dropped[: SIZE // 4 * 4] == 0).double().view(-1, 4)
    bound = 5 * math.sqrt(p * (1 - p) / len(lanes))
    assert (lanes.mean(dim=0) - p).abs().max() < bound
    assert (torch.corrcoef(lanes.T) - torch.eye(4)).abs().max() < 5 / math.sqrt(len(lanes))


@pytest.mark.parametrize("p", [0.1, 0.3])
def test_the_mean_is_kept_exactly(p: float) -> None:
    """Kept times scale is one for the probability as drawn, which is a multiple of 2^-16."""
    kept = 1 - round(p * 2**16) / 2**16
    values = drop(torch.ones(1000, dtype=torch.float64), p).unique()
    torch.testing.assert_close(values, torch.tensor([0, 1 / kept], dtype=torch.float64))
    assert abs(1 - kept - p) <= 2**-17


def test_the_controls_of_the_tests_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another probability, and draws of 63 bits, would be seen."""
    torch.manual_seed(0)
    share = float((drop(torch.ones(SIZE), 0.105) == 0).double().mean())
    assert abs(share - 0.1) > 5 * math.sqrt(0.1 * 0.9 / SIZE)
    halves = torch.empty(SIZE // 4, dtype=torch.int64).random_().view(torch.int16)
    lanes = (halves < dropout.threshold(0.1)).double().view(-1, 4)
    assert (lanes.mean(dim=0) - 0.1).abs().max() > 0.09


def test_the_gradient_is_that_of_what_was_kept() -> None:
    values = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    out = drop(values, 0.4)
    weight = torch.randn(7, 11, dtype=torch.float64)
    (out * weight).sum().backward()
    factor = (out / values).detach()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, weight * factor, rtol=1e-14, atol=0)
    assert 0 < (factor == 0).double().mean() < 1

    def again(each: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return drop(each, 0.4)

    assert torch.autograd.gradcheck(again, (values,))


def test_a_seed_repeats_it_and_another_does_not() -> None:
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(drop(torch.ones(100), 0.5))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


def test_any_layout_and_no_elements() -> None:
    torch.manual_seed(0)
    turned = drop(torch.ones(30, 20).T, 0.5)
    assert turned.shape == (20, 30) and {*turned.unique().tolist()} == {0.0, 2.0}
    assert drop(torch.ones(0, 4), 0.5).shape == (0, 4)


def test_nothing_and_everything_is_left_to_torch() -> None:
    state = torch.get_rng_state()
    assert torch.equal(drop(torch.ones(50), 0.0), torch.ones(50))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drop(torch.ones(50), 1.0), torch.zeros(50))


def test_a_modules_dropouts_are_exchanged_and_drop_in_training_only() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.25), nn.AlphaDropout(0.25))
    exchange_dropout(model)
    assert isinstance(model[1], LaneDropout) and type(model[2]) is nn.AlphaDropout
    assert model[1].p == 0.25 and isinstance(model[1], nn.Dropout)
    values = torch.ones(1000)
    assert (model[1].train()(values) == 0).any()
    assert torch.equal(model[1].eval()(values), values)
    model[1].p = 0.0
    assert torch.equal(model[1].train()(values), values)
