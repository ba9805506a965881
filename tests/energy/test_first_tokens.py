"""The last layer for first tokens alone: less is computed, and nothing is another number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from calib_ebm.energy.dropout import exchange_dropout
from calib_ebm.energy.first_tokens import last_layer
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.shapes import TokenBatch

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
MODELS: dict[str, Any] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZE)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZE)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**SIZE, embedding_size=8)),
}
LENGTHS = [3, 11, 2, 7, 7, 1, 9]


def network(kind: str) -> EnergyNetwork:
    torch.manual_seed(0)
    net = EnergyNetwork(MODELS[kind](), build_energy("scalar", 16)).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter *= 8
    return net


def tokens(lengths: list[int]) -> TokenBatch:
    torch.manual_seed(1)
    mask_BT = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids_BT = torch.randint(5, 50, mask_BT.shape) * mask_BT + (1 - mask_BT)
    return TokenBatch(ids_BT, mask_BT, None)


def rows_seen(net: EnergyNetwork, passes: Any, batch: TokenBatch) -> list[int]:
    """Tokens for which each layer's last product is computed."""
    seen: list[int] = []
    hooks = [
        layer.output.dense.register_forward_hook(lambda *args: seen.append(args[1][0].shape[1]))
        for layer in net.encoder.encoder.layer  # type: ignore[union-attr]  # of BERT's build
    ]
    passes(batch)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("kind", [*MODELS])
@pytest.mark.parametrize("lengths", [LENGTHS, [1, 1, 1], [6]])
def test_scores_and_gradients_are_those_of_the_whole_layer(kind: str, lengths: list[int]) -> None:
    net, batch = network(kind), tokens(lengths)
    found: list[list[Tensor | None]] = []
    for passes in (build_passes(net, 3), Packed(net, 3, whole=True), net):
        scores = passes(batch)
        assert scores.energy_B is not None
        (scores.logits_BC.square().sum() + scores.energy_B.sum()).backward()
        found.append([scores.logits_BC, scores.energy_B, *(p.grad for p in net.parameters())])
        net.zero_grad()
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", [*MODELS])
def test_the_last_layer_computes_first_tokens_only(kind: str) -> None:
    net, batch = network(kind), tokens(LENGTHS)
    passes = build_passes(net, 3)
    assert isinstance(passes, Packed) and not passes.whole
    assert rows_seen(net, passes, batch) == [sum(LENGTHS), len(LENGTHS)]
    assert rows_seen(net, Packed(net, 3, whole=True), batch) == [sum(LENGTHS)] * 2
    # All tokens where all are asked for.
    assert rows_seen(net, passes.hidden, batch) == [sum(LENGTHS)] * 2
    assert "forward" not in vars(net.encoder.encoder.layer[-1])  # type: ignore[union-attr, index]


def test_a_pass_that_fails_leaves_the_layer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("bert")
    passes = build_passes(net, 3)
    monkeypatch.setattr(net.energy, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        passes(tokens(LENGTHS))
    assert "forward" not in vars(net.encoder.encoder.layer[-1])  # type: ignore[union-attr, index]


def test_an_encoder_of_another_build_computes_its_last_layer_whole() -> None:
    small = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    net = EnergyNetwork(DistilBertForSequenceClassification(DistilBertConfig(**small)), None)
    assert last_layer(net.encoder) is None and last_layer(nn.Linear(2, 2)) is None
    passes = build_passes(net.eval(), 3)
    assert isinstance(passes, Packed)
    torch.testing.assert_close(passes(tokens(LENGTHS)).logits_BC, net(tokens(LENGTHS)).logits_BC)


class Cut(nn.Module):
    """A last layer that behaves otherwise than one of BERT's build: its output is halved."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = (
            layer.attention,
            layer.intermediate,
            layer.output,
        )
        vars(self)["whole"] = type(layer).forward

    def feed_forward_chunk(self, values: Tensor) -> Tensor:
        return self.output(self.intermediate(values), values)

    def forward(self, hidden: Tensor, *args: Any, **further: Any) -> Tensor:
        seen, _ = self.attention(hidden, *args[:1], **further)
        return self.feed_forward_chunk(seen) / 2


def test_what_only_looks_like_berts_is_found_out() -> None:
    """The probe compares, so a layer whose parts are named alike is computed whole."""
    net = network("bert")
    layers = net.encoder.encoder.layer  # type: ignore[union-attr]
    layers[-1] = Cut(layers[-1])  # type: ignore[index, operator]
    assert last_layer(net.encoder) is not None
    passes = build_passes(net, 3)
    assert isinstance(passes, Packed) and passes.whole
    torch.testing.assert_close(passes(tokens(LENGTHS)).logits_BC, net(tokens(LENGTHS)).logits_BC)


@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_of_the_last_layer_is_drawn_in_training(rate: str) -> None:
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, rate: 0.5}
    one_layer = {**SIZE, "num_hidden_layers": 1, "classifier_dropout": 0.0}
    net = EnergyNetwork(BertForSequenceClassification(BertConfig(**one_layer, **rates)), None)
    exchange_dropout(net)
    passes, batch = build_passes(net, 2), tokens(LENGTHS)
    net.train()
    with torch.no_grad():
        torch.manual_seed(1)
        first = passes(batch).logits_BC
        torch.manual_seed(1)
        assert torch.equal(passes(batch).logits_BC, first)
        assert not torch.equal(passes(batch).logits_BC, first)
        net.eval()
        assert torch.equal(passes(batch).logits_BC, passes(batch).logits_BC)
