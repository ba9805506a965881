"""Texts packed in one row give what they give in an ordinary pass, or are not packed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import ATTENTION, Packed, build_passes, packed_attention
from calib_ebm.energy.packing import pack
from calib_ebm.shapes import TokenBatch

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
MODERN = {
    **SIZE,
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **{"cls_token_id": 1, "sep_token_id": 2},
}
PACKED = {
    "bert": (BertForSequenceClassification, BertConfig, SIZE),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, SIZE),
    "electra": (ElectraForSequenceClassification, ElectraConfig, {**SIZE, "embedding_size": 8}),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig, DISTIL),
}
NOT_PACKED = {
    # Attention of its own; a pooler in two parts; attention within a window; the mean of tokens.
    "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config, SIZE),
    "albert": (AlbertForSequenceClassification, AlbertConfig, {**SIZE, "embedding_size": 8}),
    "modernbert": (ModernBertForSequenceClassification, ModernBertConfig, MODERN),
    "modernbert-mean": (
        ModernBertForSequenceClassification,
        ModernBertConfig,
        {**MODERN, "classifier_pooling": "mean", "layer_types": ["full_attention"] * 2},
    ),
}
Lengths = st.lists(st.integers(1, 12), min_size=1, max_size=8)


def network(kind: str, energy: str = "scalar") -> EnergyNetwork:
    """Weights large enough to matter; float64, without dropout."""
    classifier, config, size = {**PACKED, **NOT_PACKED}[kind]
    torch.manual_seed(0)
    model: nn.Module = classifier(config(**size))
    net = EnergyNetwork(model, build_energy(energy, 16)).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter *= 8  # from a standard deviation of .02
    return net


def tokens(lengths: list[int], types: bool = False) -> TokenBatch:
    """Texts of these lengths, padded on the right with a zero or one that is masked."""
    torch.manual_seed(1)
    mask_BT = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids_BT = torch.randint(5, 50, mask_BT.shape) * mask_BT + (1 - mask_BT)
    types_BT = (torch.randint(0, 2, mask_BT.shape) * mask_BT) if types else None
    return TokenBatch(ids_BT, mask_BT, types_BT)


@pytest.mark.parametrize("kind", [*PACKED])
def test_scores_are_those_of_an_ordinary_pass(kind: str) -> None:
    net = network(kind)
    batch = tokens([3, 11, 2, 7, 7, 1, 9], types=kind == "bert")
    expected = net(batch)
    passes = build_passes(net, 3)
    assert isinstance(passes, Packed)
    for ours in (passes(batch), Packed(net, 1)(batch), net(batch)):
        torch.testing.assert_close(ours.logits_BC, expected.logits_BC, rtol=0, atol=1e-10)
        torch.testing.assert_close(ours.energy_B, expected.energy_B, rtol=0, atol=1e-10)
    # The control: would the first text's tokens see the second's, it would show.
    row = torch.cat((batch.input_ids_BT[0, :3], batch.input_ids_BT[1]))[None]
    both = net(TokenBatch(row, torch.ones_like(row), None))
    assert (both.logits_BC[0] - expected.logits_BC[0]).abs().max() > 1e-4


@given(Lengths, st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_whatever_the_lengths(lengths: list[int], groups: int) -> None:
    net = network("roberta")
    batch = tokens(lengths)
    ours, theirs = Packed(net, groups)(batch), net(batch)
    torch.testing.assert_close(ours.logits_BC, theirs.logits_BC, rtol=0, atol=1e-10)
    hidden_BTH = net.hidden(batch)
    for passes in (Packed(net, groups), Grouped(net, groups)):
        torch.testing.assert_close(
            passes.hidden(batch), hidden_BTH[batch.attention_mask_BT.bool()], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("kind", [*PACKED])
def test_gradients_are_those_of_an_ordinary_pass(kind: str) -> None:
    batch = tokens([3, 11, 2, 7, 7, 1, 9], types=kind == "bert")
    grads = []
    for how in (Grouped, build_passes):
        net = network(kind)
        scores = how(net, 2)(batch)
        weight_B = torch.linspace(-1, 2, 7).double()
        (scores.logits_BC.square().sum() + (weight_B * scores.energy_B).sum()).backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
    ours, theirs = grads[1], grads[0]
    for name, grad in theirs.items():
        if grad is None:
            assert ours[name] is None, name
        else:
            torch.testing.assert_close(ours[name], grad, rtol=1e-8, atol=1e-8)
    assert max(g.abs().max() for g in theirs.values() if g is not None) > 1e-2


def test_a_gradient_at_padding_would_be_lost_so_there_must_be_none() -> None:
    """What `_Spread` relies on: keys and queries of padding have gradients of exactly zero."""
    query, key, value = (torch.randn(2, 1, 4, 3, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)[:, None, None]
    seen = nn.functional.scaled_dot_product_attention(query, key, value, mask)
    (seen[0, :, :2].square().sum() + seen[1].square().sum()).backward()
    for each in (query, key, value):
        assert each.grad is not None
        assert (each.grad[0, :, 2:] == 0).all() and (each.grad[0, :, :2] != 0).all()


@given(Lengths, st.integers(1, 6))
@settings(deadline=None)
def test_every_token_has_one_place_and_padding_repeats_its_own_text(
    lengths: list[int], groups: int
) -> None:
    packing = pack(tokens(lengths), groups)
    places = packing.padded
    total = sum(lengths)
    assert places.spread_M[places.real_N].tolist() == list(range(total))
    assert sum(g.texts * g.length for g in places.groups) == len(places.spread_M)
    assert sum(g.texts for g in places.groups) == len(lengths)
    text_N = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    assert text_N[packing.first_B].tolist() == list(range(len(lengths)))
    start = 0
    for group in places.groups:
        place_GL = places.spread_M[start : start + group.texts * group.length]
        text_GL = text_N[place_GL].view(group.texts, group.length)
        assert (text_GL == text_GL[:, :1]).all()
        start += group.texts * group.length
        if group.key_mask_G11L is None:
            assert {lengths[int(text)] for text in text_GL[:, 0]} == {group.length}


@pytest.mark.parametrize("kind", [*NOT_PACKED])
def test_what_cannot_be_packed_is_grouped_and_left_as_it_was(kind: str) -> None:
    net = network(kind)
    before, attention = net(tokens([3, 5])), net.encoder.config._attn_implementation
    passes = build_passes(net, 3)
    assert isinstance(passes, Grouped) and passes.groups == 3
    assert build_passes(net, 3, one=True).groups == 1
    assert net.encoder.config._attn_implementation == attention
    assert torch.equal(net(tokens([3, 5])).logits_BC, before.logits_BC)
    torch.testing.assert_close(passes(tokens([3, 5])).logits_BC, before.logits_BC)


def test_a_mask_or_a_window_is_refused_and_never_ignored() -> None:
    """What the probe must meet in an encoder that brings one."""
    packing = pack(tokens([2, 3]), 1)
    heads = torch.randn(1, 2, 5, 4)
    layer = nn.Identity()
    seen, _ = packed_attention(layer, heads, heads, heads, None, packing=packing)
    assert seen.shape == (1, 5, 2, 4)
    for mask, window in ((torch.ones(1, 1, 5, 5), None), (None, 3)):
        with pytest.raises(ValueError, match="no other mask"):
            packed_attention(
                layer, heads, heads, heads, mask, packing=packing, sliding_window=window
            )


def test_attention_that_was_asked_for_is_kept() -> None:
    net = network("bert")
    net.encoder.set_attn_implementation("eager")
    assert isinstance(build_passes(net, 3), Grouped)
    assert net.encoder.config._attn_implementation == "eager"


def test_what_was_packed_before_is_packed_again_to_the_same_bits() -> None:
    """As when a run measures what it has trained: else the numbers of one that went on differ."""
    net = network("roberta").eval()
    other = deepcopy(net)
    once, twice = build_passes(net, 2), build_passes(net, 2)
    assert isinstance(once, Packed) and isinstance(twice, Packed)
    fresh = build_passes(other, 2)
    batch = tokens([3, 7, 5])
    for first, second, third in zip(*(one(batch) for one in (once, twice, fresh)), strict=True):
        assert torch.equal(first, second) and torch.equal(first, third)


def test_the_mode_and_the_random_numbers_are_left_as_they_were() -> None:
    net = network("roberta", "self_sampled").train()
    state = torch.get_rng_state()
    assert isinstance(build_passes(net, 2), Packed)
    assert net.training and torch.equal(torch.get_rng_state(), state)


def test_dropout_is_applied_in_attention_too() -> None:
    classifier, config, size = PACKED["bert"]
    rates = {"hidden_dropout_prob": 0.0, "classifier_dropout": 0.0}
    net = EnergyNetwork(
        classifier(config(**size, **rates, attention_probs_dropout_prob=0.5)), None
    ).double()
    passes, batch = build_passes(net, 2), tokens([5, 3, 5])
    net.train()
    with torch.no_grad():
        assert not torch.equal(passes(batch).logits_BC, passes(batch).logits_BC)
        net.eval()
        assert torch.equal(passes(batch).logits_BC, passes(batch).logits_BC)


def test_an_encoder_that_was_copied_before_can_be_packed_with(tmp_path: Path) -> None:
    """The frozen copy of joint masked-LM learning."""
    net = network("roberta")
    copy, batch = deepcopy(net.encoder), tokens([4, 2, 6])
    expected: Tensor = net.hidden(batch)[batch.attention_mask_BT.bool()]
    passes = build_passes(net, 2)
    with torch.no_grad():
        net.encoder.embeddings.word_embeddings.weight.zero_()  # type: ignore[union-attr]  # roberta's
        torch.testing.assert_close(passes.hidden(batch, copy), expected)
        assert not torch.allclose(passes.hidden(batch), expected)


def test_a_saved_model_knows_nothing_of_it(tmp_path: Path) -> None:
    net = network("bert")
    build_passes(net, 2)
    assert net.encoder.config._attn_implementation == ATTENTION
    net.classifier.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"
