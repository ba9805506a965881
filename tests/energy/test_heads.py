"""The energies against their numbers, bounds and symmetries."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calib_ebm.energy.heads import (
    ENERGIES,
    Energy,
    FlippedScalarEnergy,
    HiddenEnergy,
    LabelledEnergy,
    NoiseLabelledEnergy,
    ScalarEnergy,
    SelfSampledEnergy,
    SharpHiddenEnergy,
    build_energy,
)
from calib_ebm.errors import InputError

LOGITS_BC = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0]])
LABEL_B = torch.tensor([2, 0, 1])
CONF = Path(__file__).parents[2] / "conf" / "energy"

matrices = st.integers(1, 5).flatmap(
    lambda classes: st.lists(
        st.lists(st.floats(-50, 50), min_size=classes, max_size=classes), min_size=1, max_size=4
    )
)


def test_the_numbers_of_the_method() -> None:
    hidden_B, sharp_B = HiddenEnergy()(LOGITS_BC), SharpHiddenEnergy()(LOGITS_BC)
    assert hidden_B.tolist() == pytest.approx([-2.241311, -1.098612, -4.049456], abs=1e-6)
    assert sharp_B.tolist() == [-2.0, 0.0, -4.0]
    assert LabelledEnergy()(LOGITS_BC, None, LABEL_B).tolist() == [-0.5, 0.0, -4.0]


@given(matrices)
def test_hidden_lies_within_log_c_below_sharp(rows: list[list[float]]) -> None:
    logits_BC = torch.tensor(rows, dtype=torch.float64)
    hidden_B, sharp_B = HiddenEnergy()(logits_BC), SharpHiddenEnergy()(logits_BC)
    slack = 1e-9
    assert bool((hidden_B <= sharp_B + slack).all())
    assert bool((hidden_B >= sharp_B - math.log(logits_BC.shape[1]) - slack).all())


@given(matrices, st.floats(-100, 100))
def test_a_shift_of_all_logits_moves_the_energy_and_no_probability(
    rows: list[list[float]], shift: float
) -> None:
    logits_BC = torch.tensor(rows, dtype=torch.float64)
    label_B = torch.zeros(len(rows), dtype=torch.long)
    moved_BC = logits_BC + shift
    torch.testing.assert_close(moved_BC.softmax(-1), logits_BC.softmax(-1), rtol=1e-9, atol=1e-12)
    for energy in (HiddenEnergy(), SharpHiddenEnergy(), LabelledEnergy()):
        before_B, after_B = energy(logits_BC, None, label_B), energy(moved_BC, None, label_B)
        torch.testing.assert_close(after_B, before_B - shift, rtol=1e-9, atol=1e-9)


def test_the_shift_does_not_move_the_scalar_energy() -> None:
    """The control of the test above: this energy knows nothing of the logits."""
    torch.manual_seed(0)
    energy, hidden_BTH = ScalarEnergy(8).eval(), torch.randn(3, 5, 8)
    assert torch.equal(energy(LOGITS_BC, hidden_BTH), energy(LOGITS_BC + 7.0, hidden_BTH))


def test_the_scalar_energy_reads_the_first_token_only() -> None:
    torch.manual_seed(0)
    energy, hidden_BTH = ScalarEnergy(8).eval(), torch.randn(3, 5, 8)
    before_B = energy(LOGITS_BC, hidden_BTH)
    rest_BTH = hidden_BTH.clone()
    rest_BTH[:, 1:] += 1.0
    assert torch.equal(energy(LOGITS_BC, rest_BTH), before_B)
    first_BTH = hidden_BTH.clone()
    first_BTH[:, 0] += 1.0
    assert (energy(LOGITS_BC, first_BTH) - before_B).abs().min() > 1e-3


def test_the_scalar_energy_drops_out_in_training_only() -> None:
    torch.manual_seed(0)
    energy, hidden_BTH = ScalarEnergy(8, dropout=0.5), torch.ones(1, 1, 8)
    energy.train()
    assert len({energy(LOGITS_BC[:1], hidden_BTH).item() for _ in range(8)}) > 1
    energy.eval()
    assert len({energy(LOGITS_BC[:1], hidden_BTH).item() for _ in range(8)}) == 1


@pytest.mark.parametrize("kind", [LabelledEnergy, NoiseLabelledEnergy])
def test_an_unknown_label_falls_back_to_hidden(kind: type[Energy]) -> None:
    hidden_B = HiddenEnergy()(LOGITS_BC)
    assert torch.equal(kind()(LOGITS_BC), hidden_B)
    label_B = torch.tensor([2, -1, 1])
    expected_B = torch.stack([-LOGITS_BC[0, 2], hidden_B[1], -LOGITS_BC[2, 1]])
    assert torch.equal(kind()(LOGITS_BC, None, label_B), expected_B)


def test_whose_labels_are_read() -> None:
    """What training hands in; that it does so is tested with `score_joint`."""
    assert LabelledEnergy.reads_labels == {"data", "noise"}
    assert NoiseLabelledEnergy.reads_labels == {"noise"}
    readers = {name for name, kind in ENERGIES.items() if kind.reads_labels}
    assert readers == {"labelled", "noise_labelled"}


def test_energies_that_read_no_labels_are_not_moved_by_them() -> None:
    for name, kind in ENERGIES.items():
        if kind.reads_labels or kind.needs_hidden or name == "self_sampled":
            continue
        assert torch.equal(kind()(LOGITS_BC, None, LABEL_B), kind()(LOGITS_BC)), name


def test_the_self_sampled_energy_draws_from_the_softmax() -> None:
    torch.manual_seed(0)
    logits_C, draws = torch.tensor([0.5, -0.7, 1.2]), 4000
    energy_N = SelfSampledEnergy()(logits_C.expand(draws, 3))
    counts = [int((energy_N == -logit).sum()) for logit in logits_C]
    assert sum(counts) == draws
    expected = (draws * logits_C.double().softmax(-1)).tolist()
    assert stats.chisquare(counts, expected).pvalue > 1e-4
    uniform = [draws / 3] * 3  # the control: the test tells this from another distribution
    assert stats.chisquare(counts, uniform).pvalue < 1e-9


def test_the_self_sampled_draw_takes_no_gradient() -> None:
    """The gradient is that of the drawn logit alone: -1 there and 0 elsewhere."""
    torch.manual_seed(0)
    logits_BC = LOGITS_BC.clone().requires_grad_()
    energy_B = SelfSampledEnergy()(logits_BC)
    energy_B.sum().backward()
    assert logits_BC.grad is not None
    drawn_BC = -logits_BC.grad
    assert sorted(drawn_BC.flatten().tolist()) == [0.0] * 6 + [1.0] * 3
    assert torch.equal(-(drawn_BC * LOGITS_BC).sum(-1), energy_B.detach())
    hidden_BC = LOGITS_BC.clone().requires_grad_()  # the control: the hidden energy spreads it
    HiddenEnergy()(hidden_BC).sum().backward()
    assert hidden_BC.grad is not None
    assert int((hidden_BC.grad != 0).sum()) == 9


def test_logits_that_are_not_finite_reach_the_loss() -> None:
    logits_BC = torch.tensor([[math.nan, 1.0], [math.inf, math.inf]])
    assert not torch.isfinite(SelfSampledEnergy()(logits_BC)[0])


@pytest.mark.parametrize("name", ["scalar", "hidden", "sharp_hidden"])
def test_flipped_is_minus(name: str) -> None:
    torch.manual_seed(0)
    plain = ENERGIES[name](8) if name == "scalar" else ENERGIES[name]()
    flipped = ENERGIES[f"{name}_flipped"](8) if name == "scalar" else ENERGIES[f"{name}_flipped"]()
    flipped.load_state_dict(plain.state_dict())
    hidden_BTH = torch.randn(3, 5, 8)
    plain_B = plain.eval()(LOGITS_BC, hidden_BTH)
    assert torch.equal(flipped.eval()(LOGITS_BC, hidden_BTH), -plain_B)
    assert plain_B.abs().max() > 0


def test_every_energy_has_its_file_and_every_file_its_energy() -> None:
    files = {path.stem: yaml.safe_load(path.read_text()) for path in CONF.glob("*.yaml")}
    assert set(files) == {*ENERGIES, "none"}
    for stem, values in files.items():
        assert values.pop("name") == stem
        # Heads of their own take a dropout, and nothing else takes anything.
        assert set(values) == ({"dropout"} if stem.startswith("scalar") else set()), stem


def test_energies_are_built_by_name() -> None:
    for name, kind in ENERGIES.items():
        energy = build_energy(name, 8)
        assert type(energy) is kind
        shape = energy(LOGITS_BC, torch.randn(3, 5, 8), LABEL_B).shape
        assert shape == (3,), name
    assert build_energy("none", 8) is None


def test_the_dropout_of_a_head_is_as_set() -> None:
    energy = build_energy("scalar_flipped", 8, dropout=0.25)
    assert isinstance(energy, FlippedScalarEnergy)
    drops = [part.p for part in energy.modules() if isinstance(part, torch.nn.Dropout)]
    assert drops == [0.25, 0.25]


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="'sharp'") as refused:
        build_energy("sharp", 8)
    assert "sharp_hidden" in refused.value.allowed
    assert "none" in refused.value.allowed
