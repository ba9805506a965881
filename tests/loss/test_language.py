"""The terms of joint masked-LM learning, by hand and against torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from calib_ebm.errors import InputError
from calib_ebm.loss.joint import JointLoss, Term, with_terms
from calib_ebm.loss.language import LanguageOptions, mlm_loss, mlm_teacher_loss, tie_loss

PROBS_NV = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], dtype=torch.float64)


def test_the_masked_lm_loss_by_hand() -> None:
    ours = mlm_loss(PROBS_NV.log(), torch.tensor([1, 1]))
    assert ours.item() == pytest.approx(-(math.log(0.25) + math.log(0.8)) / 2)


def test_the_teacher_s_is_torch_s_divergence_and_0_at_the_teacher() -> None:
    logits_NV, teacher_NV = PROBS_NV.log() + 3, torch.randn(2, 3, dtype=torch.float64)
    theirs = kl_divergence(Categorical(logits=teacher_NV), Categorical(logits=logits_NV)).mean()
    torch.testing.assert_close(mlm_teacher_loss(logits_NV, teacher_NV), theirs)
    assert abs(mlm_teacher_loss(teacher_NV, teacher_NV)) < 1e-12
    reverse = mlm_teacher_loss(teacher_NV, logits_NV)
    assert abs(reverse - theirs) > 1e-6  # the direction matters


def test_without_masked_tokens_both_are_0() -> None:
    none_NV = torch.zeros(0, 3, requires_grad=True)
    assert mlm_loss(none_NV, torch.zeros(0, dtype=torch.long)).item() == 0
    assert mlm_teacher_loss(none_NV, torch.zeros(0, 3)).item() == 0


def test_the_tie_by_hand() -> None:
    hidden_NH = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 5.0]])
    expected = ((1 + 4) / 2 + (9 + 16) / 2 + (25 + 25) / 2) / 3
    assert tie_loss(hidden_NH, torch.zeros(3, 2)).item() == pytest.approx(expected)
    assert tie_loss(hidden_NH, hidden_NH).item() == 0


def test_gradients_are_those_of_the_values() -> None:
    logits_NV = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher_NV = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: mlm_teacher_loss(z, teacher_NV), (logits_NV,))
    assert torch.autograd.gradcheck(lambda z: mlm_loss(z, torch.tensor([0, 3, 1])), (logits_NV,))
    hidden_NH = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    before_NH = torch.randn(3, 2).double()
    assert torch.autograd.gradcheck(lambda h: tie_loss(h, before_NH), (hidden_NH,))


def test_terms_are_added_with_their_weights_and_told_without() -> None:
    parts = JointLoss()(torch.randn(2, 3), torch.tensor([0, 1]))
    terms = [Term("mlm", 0.5, torch.tensor(4.0)), Term("tie", 2.0, torch.tensor(0.25))]
    more = with_terms(parts, terms)
    torch.testing.assert_close(more.total, parts.total + 0.5 * 4 + 2 * 0.25)
    assert {k: v.item() for k, v in more.further.items()} == {"mlm": 4.0, "tie": 0.25}
    assert more.label is parts.label and with_terms(parts, []) == parts


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mlm_weight": -1.0}, "loss.mlm_weight is -1"),
        ({"tie_weight": math.inf}, "loss.tie_weight is inf"),
        ({"mask_rate": 0.0}, "both excluded"),
        ({"mask_rate": 1.0}, "loss.mask_rate is 1"),
        ({"targets": "god"}, "auto, teacher, labels"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Tensor], said: str) -> None:
    with pytest.raises(InputError) as refused:
        LanguageOptions(**settings)  # type: ignore[arg-type]  # on purpose
    assert said in str(refused.value)
