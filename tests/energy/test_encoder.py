"""Encoders of several kinds load from a folder; bad folders are refused in a sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from calib_ebm.energy.encoder import build_small_encoder, load_encoder, longest_input
from calib_ebm.energy.heads import HiddenEnergy, ScalarEnergy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.shapes import TokenBatch

SaveModel = Callable[..., Path]
TABLES = {"roberta": 18, "mpnet": 18, "bert": 20, "distilbert": 20, "electra": 20}
TABLES |= {"deberta_absolute": 20}
RELATIVE = ("deberta", "deberta_v2")
WITH_TYPES = ("bert", "electra", "deberta_absolute")
LABELS = ("no", "yes", "maybe")


def tokens(length: int, *, types: bool = True) -> TokenBatch:
    """Two texts of the given length; the second half of each has token type 1 if `types`."""
    ids_BT = torch.randint(5, 50, (2, length), generator=torch.Generator().manual_seed(length))
    types_BT = (torch.arange(length) >= length // 2).long().expand(2, length)
    return TokenBatch(ids_BT, torch.ones_like(ids_BT), types_BT if types else None)


@pytest.mark.parametrize("name", [*TABLES, *RELATIVE])
def test_an_encoder_gives_logits_and_scalar_energies_in_one_pass(
    name: str, save_model: SaveModel
) -> None:
    classifier = load_encoder(str(save_model(name)), LABELS, {})
    network = EnergyNetwork(classifier, ScalarEnergy(classifier.config.hidden_size)).eval()
    passes = []
    classifier.register_forward_hook(lambda *_: passes.append(1))
    batch = tokens(9, types=name != "roberta")
    scores = network(batch)
    assert len(passes) == 1
    assert scores.logits_BC.shape == (2, 3)
    assert scores.energy_B is not None
    assert scores.energy_B.shape == (2,)
    assert torch.isfinite(scores.energy_B).all()
    # The head reads what the encoder says last, in a pass of its own here.
    theirs_BTH = classifier.base_model(input_ids=batch.input_ids_BT, **_types(name, batch))
    ours_B = network.energy(scores.logits_BC, theirs_BTH.last_hidden_state)
    torch.testing.assert_close(scores.energy_B, ours_B, rtol=1e-5, atol=1e-6)


def _types(name: str, batch: TokenBatch) -> dict[str, torch.Tensor]:
    return {"token_type_ids": batch.token_type_ids_BT} if name in WITH_TYPES else {}


@pytest.mark.parametrize("name", [*TABLES, *RELATIVE])
def test_token_types_count_where_the_architecture_has_them(
    name: str, save_model: SaveModel
) -> None:
    network = EnergyNetwork(load_encoder(str(save_model(name)), LABELS, {}), HiddenEnergy()).eval()
    batch = tokens(8)
    if name == "roberta":  # a single type, so that only 0 is one
        batch = batch._replace(token_type_ids_BT=torch.zeros_like(batch.input_ids_BT))
    with_types, without = network(batch), network(batch._replace(token_type_ids_BT=None))
    differs = not torch.allclose(with_types.logits_BC, without.logits_BC, atol=1e-6)
    assert differs == (name in WITH_TYPES)


@pytest.mark.parametrize("name", TABLES)
def test_the_longest_input_is_taken_and_a_longer_one_is_not(
    name: str, save_model: SaveModel
) -> None:
    classifier = load_encoder(str(save_model(name)), LABELS, {})
    network = EnergyNetwork(classifier, None).eval()
    longest = longest_input(classifier)
    assert longest == TABLES[name]
    network(tokens(longest, types=False))
    with pytest.raises((IndexError, RuntimeError)):
        network(tokens(longest + 1, types=False))


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_positions_know_no_bound_and_are_held_to_what_they_were_made_for(
    name: str, save_model: SaveModel, positions: int
) -> None:
    classifier = load_encoder(str(save_model(name)), LABELS, {})
    assert longest_input(classifier) == positions
    assert EnergyNetwork(classifier, None).eval()(tokens(positions + 1)).logits_BC.shape == (2, 3)


def test_no_bound_is_none(save_model: SaveModel) -> None:
    classifier = load_encoder(str(save_model("deberta")), LABELS, {})
    classifier.config.max_position_embeddings = -1
    assert longest_input(classifier) is None


@pytest.mark.parametrize("pad_id", [0, 1, 7])
def test_a_small_encoder_takes_the_length_it_was_built_for(pad_id: int) -> None:
    small = build_small_encoder(
        LABELS, 50, pad_id, max_length=12, layers=1, width=16, heads=2, dropout=0.0
    )
    assert longest_input(small) == 12
    network = EnergyNetwork(small, None).eval()
    assert network(_padded(12, pad_id)).logits_BC.shape == (2, 3)
    with pytest.raises((IndexError, RuntimeError)):
        network(_padded(13, pad_id))
    assert small.config.id2label == dict(enumerate(LABELS))


def _padded(length: int, pad_id: int) -> TokenBatch:
    batch = tokens(length, types=False)
    ids_BT = batch.input_ids_BT.masked_fill(batch.input_ids_BT == pad_id, 11)
    ids_BT[1, length // 2 :] = pad_id
    return TokenBatch(ids_BT, (ids_BT != pad_id).long(), None)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="width=18 and heads=4") as refused:
        build_small_encoder(LABELS, 50, 1, 12, layers=1, width=18, heads=4, dropout=0.0)
    assert "width=16" in refused.value.to_do


def test_names_and_options_reach_the_config(save_model: SaveModel) -> None:
    options = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": None, "no_such": 1}
    classifier = load_encoder(str(save_model("bert")), LABELS, options)
    config = classifier.config
    assert config.hidden_dropout_prob == 0.3
    assert config.attention_probs_dropout_prob == 0.1  # None leaves BERT's own
    assert not hasattr(config, "no_such")
    assert config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert config.label2id == {"no": 0, "yes": 1, "maybe": 2}
    drops = {part.p for part in classifier.modules() if isinstance(part, torch.nn.Dropout)}
    assert 0.3 in drops


def test_the_encoder_is_the_saved_one_and_a_head_of_other_size_is_new(
    save_model: SaveModel,
) -> None:
    folder = str(save_model("bert", classes=2))
    torch.manual_seed(1)
    two, three = load_encoder(folder, LABELS[:2], {}), load_encoder(folder, LABELS, {})
    again = load_encoder(folder, LABELS[:2], {})
    word_VH = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(two.state_dict()[word_VH], three.state_dict()[word_VH])
    # A head of the right size is kept: that is how a run's own model is read again.
    assert torch.equal(two.classifier.weight, again.classifier.weight)
    assert three.classifier.weight.shape == (3, 16)


def test_weights_are_float32_whatever_the_file_holds(save_model: SaveModel) -> None:
    folder = save_model("bert")
    load_encoder(str(folder), LABELS, {}).to(torch.bfloat16).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    kinds = {p.dtype for p in load_encoder(str(folder), LABELS, {}).parameters()}
    assert kinds == {torch.float32}


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def break_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])


def lose_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lose_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def change_to_an_image_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vit"}')


@pytest.mark.parametrize(
    "damage", [break_config, break_weights, lose_weights, lose_all, change_to_an_image_model]
)
def test_a_damaged_folder_is_refused_and_shown(
    damage: Callable[[Path], None], save_model: SaveModel
) -> None:
    folder = save_model("bert")
    damage(folder)
    with pytest.raises(InputError, match="No encoder could be loaded") as refused:
        load_encoder(str(folder), LABELS, {})
    assert str(folder) in refused.value.given
    left = sorted(file.name for file in folder.iterdir())
    assert (", ".join(left) or "nothing") in refused.value.to_do


def test_code_in_a_folder_is_neither_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"}
    config = {"model_type": "unheard-of", "auto_map": ours}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('this was run')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    with pytest.raises(InputError, match="No encoder could be loaded"):
        load_encoder(str(tmp_path), LABELS, {})
    assert "[y/N]" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing/folder", "/no/such/folder", "roberta-base"])
@pytest.mark.parametrize("offline", [True, False])
def test_without_network_the_person_is_told_what_to_do_at_once(
    name: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits for an absent network"))
    with pytest.raises(InputError, match="No encoder could be loaded") as refused:
        load_encoder(name, LABELS, {})
    assert repr(name) in refused.value.given
    assert "local folder" in refused.value.to_do
