"""The label losses against closed forms, other implementations, and the cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.choice import LABEL_LOSSES, build_label_loss
from calib_ebm.loss.labels import (
    ConfidencePenalty,
    CrossEntropy,
    Focal,
    LabelLoss,
    LabelSmoothing,
    confidence_penalty_loss,
    focal_loss,
    label_smoothing_loss,
    mean_entropy,
)

PROBS_BC = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], dtype=torch.float64)
LABEL_B = torch.tensor([0, 2])
AT_ZERO: list[Callable[[], LabelLoss]] = [
    lambda: LabelSmoothing(0.0),
    lambda: Focal(0.0),
    lambda: ConfidencePenalty(0.0),
]
NOT_AT_ZERO: list[Callable[[], LabelLoss]] = [
    lambda: LabelSmoothing(0.1),
    lambda: Focal(2.0),
    lambda: Focal(0.5),
    lambda: ConfidencePenalty(0.1),
]


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    size, classes = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    logits = draw(st.lists(st.floats(-30, 30), min_size=size * classes, max_size=size * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
    return torch.tensor(logits, dtype=torch.float64).view(size, classes), torch.tensor(labels)


@given(batches())
def test_each_is_the_cross_entropy_where_its_number_is_0(batch: tuple[Tensor, Tensor]) -> None:
    logits_BC, label_B = batch
    expected = cross_entropy(logits_BC, label_B)
    for build in (CrossEntropy, *AT_ZERO):
        torch.testing.assert_close(build()(logits_BC, label_B).total, expected)


@pytest.mark.parametrize("build", NOT_AT_ZERO)
def test_and_something_else_elsewhere(build: Callable[[], LabelLoss]) -> None:
    ours = build()(PROBS_BC.log(), LABEL_B).total
    assert abs(ours - cross_entropy(PROBS_BC.log(), LABEL_B)) > 1e-3


def test_label_smoothing_by_hand() -> None:
    logs = [math.log(0.5), 2 * math.log(0.25), math.log(0.1), math.log(0.8), math.log(0.1)]
    first = -(0.7 + 0.1) * logs[0] - 0.1 * logs[1]
    second = -(0.7 + 0.1) * logs[4] - 0.1 * (logs[2] + logs[3])
    ours = label_smoothing_loss(PROBS_BC.log(), LABEL_B, 0.3)
    assert ours.item() == pytest.approx((first + second) / 2)


@given(batches(), st.floats(0, 1))
def test_label_smoothing_is_a_mixture_with_the_uniform(
    batch: tuple[Tensor, Tensor], smoothing: float
) -> None:
    logits_BC, label_B = batch
    classes = logits_BC.shape[1]
    uniform = Categorical(torch.full((classes,), 1 / classes, dtype=torch.float64))
    spread = kl_divergence(uniform, Categorical(logits=logits_BC)).mean() + math.log(classes)
    expected = (1 - smoothing) * cross_entropy(logits_BC, label_B) + smoothing * spread
    torch.testing.assert_close(label_smoothing_loss(logits_BC, label_B, smoothing), expected)


def test_focal_by_hand() -> None:
    expected = -(0.5**2 * math.log(0.5) + 0.9**2 * math.log(0.1)) / 2
    assert focal_loss(PROBS_BC.log(), LABEL_B, 2.0).item() == pytest.approx(expected)


@given(batches(), st.floats(0, 5), st.floats(0.01, 3))
def test_focal_falls_with_gamma_and_is_never_negative(
    batch: tuple[Tensor, Tensor], gamma: float, more: float
) -> None:
    low, high = focal_loss(*batch, gamma + more), focal_loss(*batch, gamma)
    assert 0 <= low <= high + 1e-12


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_has_a_slope_of_0_where_the_label_is_certain(gamma: float) -> None:
    logits_BC = torch.tensor([[200.0, 0.0]], requires_grad=True)
    focal_loss(logits_BC, torch.tensor([0]), gamma).backward()
    assert logits_BC.grad is not None
    assert torch.isfinite(logits_BC.grad).all() and logits_BC.grad.abs().max() < 1e-12


def test_the_entropy_is_that_of_torch() -> None:
    expected = Categorical(PROBS_BC).entropy().mean()
    torch.testing.assert_close(mean_entropy(PROBS_BC.log()), expected)
    by_hand = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25) + 0.2 * math.log(0.1)) / 2
    by_hand -= 0.8 * math.log(0.8) / 2
    assert mean_entropy(PROBS_BC.log()).item() == pytest.approx(by_hand)
    penalised = confidence_penalty_loss(PROBS_BC.log(), LABEL_B, 0.4)
    expected = cross_entropy(PROBS_BC.log(), LABEL_B) - 0.4 * by_hand
    torch.testing.assert_close(penalised, expected)


def test_the_entropy_has_a_slope_where_a_probability_is_0() -> None:
    logits_BC = torch.tensor([[500.0, 0.0]], requires_grad=True)
    mean_entropy(logits_BC).backward()
    assert logits_BC.grad is not None and torch.isfinite(logits_BC.grad).all()


def test_with_half_the_beta_confidence_is_dearer() -> None:
    """The sign: at beta > 0 the flat prediction costs less than it would without."""
    flat = torch.zeros(1, 2)
    assert confidence_penalty_loss(flat, torch.tensor([0]), 0.5) < math.log(2)


@pytest.mark.parametrize("build", [CrossEntropy, *NOT_AT_ZERO])
def test_gradients_are_those_of_the_values(build: Callable[[], LabelLoss]) -> None:
    logits_BC = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    label_B = torch.tensor([0, 2, 1, 1])
    loss = build()
    assert torch.autograd.gradcheck(lambda z: loss(z, label_B).total, (logits_BC,))


@pytest.mark.parametrize("build", [CrossEntropy, *NOT_AT_ZERO])
@given(batch=batches(), shift=st.floats(-20, 20))
def test_none_reads_more_than_probabilities(
    build: Callable[[], LabelLoss], batch: tuple[Tensor, Tensor], shift: float
) -> None:
    loss, (logits_BC, label_B) = build(), batch
    ours, theirs = loss(logits_BC + shift, label_B).total, loss(logits_BC, label_B).total
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "label_smoothing", "smoothing": 1.5}, "loss.smoothing is 1.5"),
        ({"name": "label_smoothing", "smoothing": -0.1}, "from 0 to 1"),
        ({"name": "focal", "gamma": -1.0}, "loss.gamma is -1.0"),
        ({"name": "focal", "gamma": math.inf}, "a number from 0\n"),
        ({"name": "confidence_penalty", "beta": math.nan}, "loss.beta is nan"),
        ({"name": "brier"}, "loss.name is 'brier'"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as refused:
        build_label_loss(settings, 2)
    assert said in str(refused.value)


def test_every_choice_is_built_with_its_settings() -> None:
    values = {"smoothing": 0.25, "gamma": 3.0, "beta": 0.5}
    for name, kind in LABEL_LOSSES.items():
        if {*kind.settings} <= {*values}:
            built = build_label_loss({"name": name, **values}, 2)
            assert type(built) is kind
            assert {key: getattr(built, key) for key in kind.settings} == {
                key: values[key] for key in kind.settings
            }
