"""The joint loss is the sum that it says it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.joint import JointLoss
from calib_ebm.loss.labels import ConfidencePenalty, Focal
from calib_ebm.loss.nce import nce_loss

LOGITS_BC = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
LABEL_B = torch.tensor([0, 2])
DATA_B = torch.tensor([-1.0, 0.5])
NOISE_BK = torch.tensor([[0.0, 1.0], [2.0, -0.5]])


def test_the_parts_and_their_sum() -> None:
    parts = JointLoss(0.25)(LOGITS_BC, LABEL_B, DATA_B, NOISE_BK)
    log_sum = math.log(math.exp(2) + math.exp(-1) + math.exp(0.5))
    assert parts.ce.item() == pytest.approx((log_sum - 2 + math.log(3)) / 2, rel=1e-6)
    assert parts.nce is not None
    assert parts.nce.item() == pytest.approx(nce_loss(DATA_B, NOISE_BK).item())
    assert parts.total.item() == pytest.approx(parts.ce.item() + 0.25 * parts.nce.item())


@pytest.mark.parametrize("given", [(), (DATA_B, None), (None, NOISE_BK)])
def test_without_an_energy_it_is_plain_fine_tuning(given: tuple[torch.Tensor | None, ...]) -> None:
    parts = JointLoss()(LOGITS_BC, LABEL_B, *given)
    assert parts.nce is None
    assert parts.total.item() == parts.ce.item() == cross_entropy(LOGITS_BC, LABEL_B).item()


def test_another_label_loss_takes_the_place_of_the_cross_entropy_which_is_still_told() -> None:
    plain = JointLoss(0.25)(LOGITS_BC, LABEL_B, DATA_B, NOISE_BK)
    focal = JointLoss(0.25, label=Focal(2.0))(LOGITS_BC, LABEL_B, DATA_B, NOISE_BK)
    assert plain.label is plain.ce
    assert focal.ce.item() == plain.ce.item() and not focal.ce.requires_grad
    assert focal.nce is not None and plain.nce is not None
    assert focal.label.item() < plain.label.item()
    assert focal.total.item() == pytest.approx(focal.label.item() + 0.25 * focal.nce.item())
    assert (focal.total - focal.label).item() == pytest.approx((plain.total - plain.ce).item())
    further = JointLoss(label=ConfidencePenalty(0.1))(LOGITS_BC, LABEL_B).further
    assert {*further} == {"entropy"} and plain.further == {}


def test_at_weight_0_the_energy_is_measured_and_not_trained() -> None:
    data_B = DATA_B.clone().requires_grad_()
    parts = JointLoss(0.0)(LOGITS_BC, LABEL_B, data_B, NOISE_BK)
    assert parts.nce is not None
    assert parts.nce.item() > 0
    parts.total.backward()
    assert data_B.grad is not None
    assert data_B.grad.abs().max() == 0


def test_half_precision_is_widened_and_double_is_kept() -> None:
    half = JointLoss()(LOGITS_BC.bfloat16(), LABEL_B, DATA_B.bfloat16(), NOISE_BK.bfloat16())
    assert {part.dtype for part in half if isinstance(part, torch.Tensor)} == {torch.float32}
    exact = JointLoss()(LOGITS_BC, LABEL_B, DATA_B, NOISE_BK)
    # These energies and logits are exact in bfloat16, so only the sums could lose anything.
    assert half.total.item() == exact.total.item()
    double = JointLoss()(LOGITS_BC.double(), LABEL_B, DATA_B.double(), NOISE_BK.double())
    assert double.total.dtype == torch.float64


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_other_weights_are_refused(weight: float) -> None:
    with pytest.raises(InputError, match="nce_weight"):
        JointLoss(weight)


def test_the_weight_rises_over_the_ramp() -> None:
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    energies = torch.tensor([0.3, -0.2]), torch.tensor([[0.1], [0.4]])
    loss = JointLoss(2.0, ramp=0.4)
    parts = {at: loss(logits, labels, *energies, progress=at) for at in (0.0, 0.1, 0.4, 1.0)}
    for at, weight in ((0.0, 0.0), (0.1, 0.5), (0.4, 2.0), (1.0, 2.0)):
        assert parts[at].nce is not None
        torch.testing.assert_close(parts[at].total, parts[at].ce + weight * parts[at].nce)
    at_once = JointLoss(2.0)(logits, labels, *energies, progress=0.0)
    torch.testing.assert_close(at_once.total, parts[1.0].total)


@pytest.mark.parametrize("ramp", [-0.1, 1.1, float("nan")])
def test_a_ramp_that_cannot_be_is_refused(ramp: float) -> None:
    with pytest.raises(InputError, match=r"loss\.ramp"):
        JointLoss(1.0, ramp=ramp)
