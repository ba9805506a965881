"""Low-rank additions: what is trained, what merging leaves, in every architecture."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from calib_ebm.energy.encoder import load_encoder
from calib_ebm.energy.lora import LoraOptions, add_lora, merge_lora, targets_of
from calib_ebm.errors import InputError

NAMES = ["roberta", "bert", "distilbert", "electra", "mpnet", "deberta", "deberta_v2"]
SaveModel = Callable[..., Path]
IDS_BT = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])


def classifier(name: str, save_model: SaveModel) -> Any:
    return load_encoder(str(save_model(name)), ("no", "yes"), {}).eval()


def moved(model: nn.Module) -> None:
    """Give every trained weight another value, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("targets", ["attention", "all_linear"])
@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_it_was_and_merges_into_what_it_became(
    name: str, targets: str, save_model: SaveModel, tmp_path: Path
) -> None:
    model = classifier(name, save_model)
    names, before = list(model.state_dict()), model(IDS_BT).logits
    start = {key: value.clone() for key, value in model.state_dict().items()}
    add_lora(model, LoraOptions(2, 4.0, 0.1, targets))
    assert torch.equal(model(IDS_BT).logits, before)
    trained = [key for key, value in model.named_parameters() if value.requires_grad]
    prefix = f"{model.base_model_prefix}."
    encoder = [key for key in trained if key.startswith(prefix)]
    assert all("lora_" in key or ".pooler." in key for key in encoder)
    assert any("lora_B" in key for key in encoder) and len(trained) > len(encoder)
    moved(model.base_model)
    became = model(IDS_BT).logits
    assert (became - before).abs().max() > 1e-4
    merge_lora(model)
    torch.testing.assert_close(model(IDS_BT).logits, became, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(plain(IDS_BT).logits, became, atol=1e-5, rtol=1e-5)
    changed = [
        key for key, value in plain.state_dict().items() if not torch.equal(value, start[key])
    ]
    expected = {f"{prefix}{key}.weight" for key in targets_of(plain.base_model, targets)}
    assert {key for key in changed if ".pooler." not in key} == expected


def test_the_merged_weight_by_hand(save_model: SaveModel) -> None:
    model = classifier("bert", save_model)
    query = "bert.encoder.layer.0.attention.self.query"
    before = model.get_submodule(query).weight.detach().clone()
    add_lora(model, LoraOptions(2, 6.0))
    moved(model)
    layer = model.get_submodule(query)
    a_RH, b_HR = layer.lora_A["lora"].weight, layer.lora_B["lora"].weight
    expected = before + 6 / 2 * b_HR.detach() @ a_RH.detach()
    merge_lora(model)
    torch.testing.assert_close(model.get_submodule(query).weight.data, expected)


def test_at_rank_0_nothing_is_done(save_model: SaveModel) -> None:
    model = classifier("bert", save_model)
    names = list(model.state_dict())
    add_lora(model, LoraOptions(0))
    merge_lora(model)
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": -1}, "encoder.lora.rank is -1"),
        ({"alpha": 0.0}, "a number above 0"),
        ({"dropout": 1.0}, "encoder.lora.dropout is 1.0"),
        ({"targets": "some"}, "attention, all_linear"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        LoraOptions(**settings)
    assert said in str(refused.value)


def test_an_encoder_without_such_layers_is_refused() -> None:
    with pytest.raises(InputError, match="all_linear"):
        targets_of(nn.Sequential(nn.Linear(2, 2)), "attention")


def test_without_peft_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, save_model: SaveModel
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return real(name, *rest, **more)

    model = classifier("bert", save_model)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"calib-ebm\[lora\]"):
        add_lora(model, LoraOptions(2))
