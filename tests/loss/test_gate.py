"""The gate follows what is learned of the labels, and the weight of the noise follows the gate."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.loss.gate import HORIZON, LabelGate
from calib_ebm.loss.joint import JointLoss

LOGITS_BC, LABEL_B = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([0, 1])
ENERGIES = torch.tensor([-1.0, 0.5]), torch.tensor([[0.2], [1.5]])


def test_knowing_how_frequent_the_labels_are_is_knowing_nothing() -> None:
    counts = (30, 60, 10)
    gate = LabelGate(0.2, counts)
    assert gate.entropy == pytest.approx(-sum(n / 100 * math.log(n / 100) for n in counts))
    for _ in range(500):
        gate.follow(torch.tensor(gate.entropy))
    assert gate.opening() == pytest.approx(0, abs=1e-5)
    # A uniform guess knows less than nothing here.
    gate.follow(torch.tensor(math.log(3)))
    assert gate.opening() == 0


@given(
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=80),
    st.floats(0.01, 1.0),
    st.lists(st.integers(1, 1000), min_size=2, max_size=5),
)
def test_it_is_the_decaying_mean_in_closed_form(
    step_ces: list[float], full_at: float, counts: list[int]
) -> None:
    gate = LabelGate(full_at, counts)
    for ce in step_ces:
        gate.follow(torch.tensor(ce))
    keep, steps = 1 - 1 / HORIZON, len(step_ces)
    mean = gate.entropy * keep**steps + sum(
        ce * keep ** (steps - 1 - step) / HORIZON for step, ce in enumerate(step_ces)
    )
    expected = min(1.0, max(0.0, 1 - mean / gate.entropy) / full_at)
    assert gate.opening().item() == pytest.approx(expected, abs=2e-4 / full_at)
    assert 0 <= gate.opening() <= 1


def test_one_label_alone_has_nothing_to_wait_for() -> None:
    gate = LabelGate(0.1, (5, 0))
    assert gate.entropy == 0 and gate.opening() == 1


def test_the_weight_is_multiplied_by_the_opening() -> None:
    gate = LabelGate(0.5, (10, 10))
    loss = JointLoss(3.0, ramp=0.5, gate=gate)
    shut = loss(LOGITS_BC, LABEL_B, *ENERGIES, progress=0.25)
    torch.testing.assert_close(shut.total, shut.ce)
    gate.mean_ce.fill_(0.8 * gate.entropy)  # a fifth is learned: two fifths open
    parts = loss(LOGITS_BC, LABEL_B, *ENERGIES, progress=0.25)
    assert parts.nce is not None and parts.further["gate"].item() == pytest.approx(0.4)
    torch.testing.assert_close(parts.total, parts.ce + 3 * 0.5 * 0.4 * parts.nce)
    noise_M = ENERGIES[1].flatten()
    ungated = JointLoss(3.0, ramp=0.5).of_noise(noise_M, 2, 1, progress=0.25)
    torch.testing.assert_close(loss.of_noise(noise_M, 2, 1, progress=0.25), 0.4 * ungated)
    gate.mean_ce.fill_(0.0)
    opened = loss(LOGITS_BC, LABEL_B, *ENERGIES, progress=0.25)
    free = JointLoss(3.0, ramp=0.5)(LOGITS_BC, LABEL_B, *ENERGIES, progress=0.25)
    torch.testing.assert_close(opened.total, free.total)


def test_scoring_a_batch_does_not_move_it_and_no_gradient_flows_through_it() -> None:
    gate = LabelGate(0.5, (10, 10))
    gate.mean_ce.fill_(0.5)
    before = gate.opening().clone()
    logits_BC = LOGITS_BC.clone().requires_grad_()
    parts = JointLoss(1.0, gate=gate)(logits_BC, LABEL_B, *ENERGIES)
    assert gate.opening() == before and not parts.further["gate"].requires_grad
    gate.follow(parts.ce.detach())
    assert gate.opening() != before and not gate.opening().requires_grad


def test_it_complains_where_the_labels_are_not_learned() -> None:
    gate = LabelGate(0.1, (10, 10))
    assert "0% of its weight (loss.gate=0.1)" in gate.complaint()[0]
    gate.mean_ce.fill_(0.96 * gate.entropy)
    assert "40% of its weight" in gate.complaint()[0]
    gate.mean_ce.fill_(0.94 * gate.entropy)
    assert not gate.complaint()


def test_plain_fine_tuning_has_no_use_for_it() -> None:
    gate = LabelGate(0.5, (10, 10))
    parts = JointLoss(1.0, gate=gate)(LOGITS_BC, LABEL_B)
    assert parts.total == parts.ce and "gate" not in parts.further


def test_its_state_stands_in_checkpoints_and_in_none_where_there_is_no_gate() -> None:
    loss = JointLoss(1.0, gate=LabelGate(0.5, (10, 10)))
    assert loss.gate is not None
    loss.gate.follow(torch.tensor(0.1))
    other = JointLoss(1.0, gate=LabelGate(0.5, (10, 10)))
    other.load_state_dict(loss.state_dict())
    assert other.gate is not None and other.gate.opening() == loss.gate.opening() > 0
    assert not JointLoss(1.0).state_dict()


@pytest.mark.parametrize("full_at", [-0.1, 1.1, math.nan, math.inf])
def test_a_gate_that_cannot_be_is_refused(full_at: float) -> None:
    with pytest.raises(InputError, match=r"loss\.gate"):
        LabelGate(full_at, (1, 1))
