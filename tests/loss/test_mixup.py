"""Mixup by hand, without a partner, and with the head that it needs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.mixup import Mixup, mixup_loss

LOGITS_BC = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], dtype=torch.float64).log()
LABEL_B = torch.tensor([0, 2])


def test_by_hand() -> None:
    ours = mixup_loss(LOGITS_BC, LABEL_B, torch.tensor([1, 0]), 0.3)
    own = math.log(0.5) + math.log(0.1)
    partners = math.log(0.25) + math.log(0.1)
    assert ours.item() == pytest.approx(-(0.3 * own + 0.7 * partners) / 2)


@given(st.floats(0, 1))
def test_it_is_the_cross_entropy_at_share_1_and_of_those_who_meet_themselves(share: float) -> None:
    expected = cross_entropy(LOGITS_BC, LABEL_B)
    torch.testing.assert_close(mixup_loss(LOGITS_BC, LABEL_B, torch.tensor([1, 0]), 1.0), expected)
    torch.testing.assert_close(mixup_loss(LOGITS_BC, LABEL_B, torch.arange(2), share), expected)
    other = mixup_loss(LOGITS_BC, LABEL_B, torch.tensor([1, 0]), 0.0)
    assert abs(other - expected) > 1e-2


def head() -> tuple[nn.Module, Tensor, list[Tensor]]:
    """A head that is not linear, what it reads of six texts, and what it was made to read."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return layers, torch.randn(6, 4, dtype=torch.float64), []


def test_what_the_head_reads_is_mixed_and_the_loss_is_of_both_labels() -> None:
    layers, pooled_BH, read = head()
    label_B = torch.tensor([0, 1, 2, 0, 1, 2])

    def again(change: Callable[[Tensor], Tensor]) -> Tensor:
        read.append(change(pooled_BH))
        return layers(read[-1])

    loss = Mixup(1.0)
    torch.manual_seed(4)
    ours = loss(layers(pooled_BH), label_B, again).total
    # The share and the partners follow from what was read: pooled - read = (1 - m)(pooled - other).
    torch.manual_seed(4)
    share = torch.distributions.Beta(1.0, 1.0).sample().item()
    partner_B = torch.randperm(6)
    assert 0 < share < 1 and not torch.equal(partner_B, torch.arange(6))
    mixed_BH = torch.stack(
        [share * pooled_BH[b] + (1 - share) * pooled_BH[partner_B[b]] for b in range(6)]
    )
    torch.testing.assert_close(read[0], mixed_BH)
    log_p = layers(mixed_BH).log_softmax(-1)
    by_hand = (
        -sum(
            share * log_p[b, label_B[b]] + (1 - share) * log_p[b, label_B[partner_B[b]]]
            for b in range(6)
        )
        / 6
    )
    torch.testing.assert_close(ours, by_hand)
    assert torch.autograd.gradcheck(
        lambda h: mixup_loss(layers(0.3 * h + 0.7 * h[partner_B]), label_B, partner_B, 0.3),
        (pooled_BH.requires_grad_(),),
    )


def test_it_is_the_cross_entropy_at_alpha_0_and_outside_of_training() -> None:
    expected = cross_entropy(LOGITS_BC, LABEL_B)
    assert Mixup(0.0)(LOGITS_BC, LABEL_B).total == expected
    assert Mixup(1.0).eval()(LOGITS_BC, LABEL_B).total == expected


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_what_cannot_be_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"loss\.alpha"):
        Mixup(alpha)
