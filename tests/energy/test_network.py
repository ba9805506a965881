"""One pass gives both, padding changes nothing, and plain fine-tuning costs nothing more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.heads import HiddenEnergy, LabelledEnergy, ScalarEnergy, SharpHiddenEnergy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.shapes import TokenBatch

PAD = 1


@pytest.fixture
def classifier() -> nn.Module:
    torch.manual_seed(0)
    model = build_small_encoder(
        ("a", "b", "c"), 50, PAD, 16, layers=2, width=16, heads=2, dropout=0.1
    )
    return model.double().eval()


def padded(lengths: tuple[int, ...], width: int) -> TokenBatch:
    generator = torch.Generator().manual_seed(3)
    ids_BT = torch.randint(5, 50, (len(lengths), 16), generator=generator)[:, :width].clone()
    mask_BT = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids_BT[mask_BT == 0] = PAD
    return TokenBatch(ids_BT, mask_BT, None)


def test_padding_changes_neither_logits_nor_energies(classifier: nn.Module) -> None:
    network = EnergyNetwork(classifier, ScalarEnergy(16).double()).eval()
    alone = network(padded((6, 6), 6))
    beside_longer = network(padded((6, 6, 15), 15))
    torch.testing.assert_close(beside_longer.logits_BC[:2], alone.logits_BC, rtol=0, atol=1e-12)
    torch.testing.assert_close(beside_longer.energy_B[:2], alone.energy_B, rtol=0, atol=1e-12)


def test_without_the_mask_it_would(classifier: nn.Module) -> None:
    """The control of the test above, which would pass if attention never looked at padding."""
    network = EnergyNetwork(classifier, None)
    masked = padded((6, 6, 15), 15)
    unmasked = masked._replace(attention_mask_BT=torch.ones_like(masked.attention_mask_BT))
    moved_BC = network(unmasked).logits_BC[:2] - network(masked).logits_BC[:2]
    assert moved_BC.abs().min() > 1e-6


def test_without_an_energy_there_is_none(classifier: nn.Module) -> None:
    batch = padded((6, 4), 6)
    plain, with_energy = EnergyNetwork(classifier, None), EnergyNetwork(classifier, HiddenEnergy())
    assert plain(batch).energy_B is None
    assert torch.equal(plain(batch).logits_BC, with_energy(batch).logits_BC)
    # No weight without a gradient: DDP would stumble over it.
    assert sum(p.numel() for p in plain.parameters()) == sum(
        p.numel() for p in classifier.parameters()
    )


def test_labels_reach_an_energy_that_reads_them(classifier: nn.Module) -> None:
    batch, label_B = padded((6, 4), 6), torch.tensor([2, -1])
    scores = EnergyNetwork(classifier, LabelledEnergy())(batch, label_B)
    hidden_B = -scores.logits_BC.logsumexp(-1)
    assert torch.equal(scores.energy_B, torch.stack([-scores.logits_BC[0, 2], hidden_B[1]]))


@pytest.mark.parametrize(
    ("energy", "wanted"), [(None, False), (SharpHiddenEnergy(), False), (ScalarEnergy(16), True)]
)
def test_hidden_states_are_asked_for_where_they_are_needed(
    energy: Any, wanted: bool, classifier: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    forward = classifier.forward

    def spy(input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool) -> Any:
        asked.append(output_hidden_states)
        return forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )

    monkeypatch.setattr(classifier, "forward", spy)
    EnergyNetwork(classifier, energy).double()(padded((6, 4), 6))
    assert asked == [wanted]


def test_token_types_are_kept_from_a_model_that_knows_none() -> None:
    class Typeless(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor, **rest: Any) -> Any:
            assert "token_type_ids" not in rest
            return type("Output", (), {"logits": torch.zeros(len(input_ids), 2)})()

    batch = padded((6, 4), 6)
    typed = batch._replace(token_type_ids_BT=torch.zeros_like(batch.input_ids_BT))
    assert EnergyNetwork(Typeless(), None)(typed).logits_BC.shape == (2, 2)
