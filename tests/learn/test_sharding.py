"""Weights in shards: the gradients are those of whole weights, and so is what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.learn.sharding import (
    _cut_states,
    _whole,
    layers_of,
    load_whole_state,
    shard,
    whole_state,
)
from calib_ebm.shapes import TokenBatch

SIZE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
RELATIVE: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}
MADE: dict[str, Any] = {
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZE, pad_token_id=1)),
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZE)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**SIZE, embedding_size=8)),
    "deberta": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**SIZE, **RELATIVE)),
}


class Steps(pl.LightningModule):
    """A loss of logits, energies and, by hand, of the encoder alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = EnergyNetwork(MADE[name](), build_energy("hidden", 16, 0.0)).eval()
        self.passes = build_passes(self.network, 2, one=True)

    def training_step(self, tokens: TokenBatch) -> Tensor:
        scores = self.passes(tokens)
        assert scores.energy_B is not None
        loss = scores.logits_BC.square().mean() + scores.energy_B.square().mean()
        return loss + self.passes.hidden(tokens).square().sum() / 1000

    validation_step = training_step

    def scored_logits(self, tokens: TokenBatch) -> Tensor:
        return self.network(tokens).logits_BC


def tokens_of(rank: int) -> TokenBatch:
    """Texts of a rank; not of as many lengths as another rank's."""
    lengths = torch.tensor([[5, 5, 3], [7, 2, 6]][rank])
    mask_BT = (torch.arange(7) < lengths[:, None]).long()
    ids_BT = torch.randint(5, 40, mask_BT.shape, generator=torch.Generator().manual_seed(rank))
    return TokenBatch(torch.where(mask_BT.bool(), ids_BT, 1), mask_BT, None)


def gradients(module: Steps) -> dict[str, Tensor]:
    named = module.named_parameters()
    return {name: _whole(p.grad) for name, p in named if p.grad is not None}


def _compare(rank: int, name: str) -> None:
    whole, ours = Steps(name), Steps(name)
    assert isinstance(ours.passes, Packed) == (name != "deberta")
    shard(ours, ours.network, init_device_mesh("cpu", (2,)))
    assert all(isinstance(weight, DTensor) for weight in ours.parameters())
    assert type(next(layers_of(ours.network))).__name__.startswith("FSDP")
    with torch.no_grad():
        logits = [each.scored_logits(tokens_of(rank)) for each in (ours, whole)]
        torch.testing.assert_close(logits[0], logits[1])
    ours.training_step(tokens_of(rank)).backward()
    (sum(whole.training_step(tokens_of(each)) for each in (0, 1)) / 2).backward()  # type: ignore[union-attr]
    found, expected = gradients(ours), gradients(whole)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=f"{name} {key}", rtol=1e-4, atol=1e-6)
    alone = Steps(name)
    alone.training_step(tokens_of(rank)).backward()  # the control: it is a mean over both ranks
    assert any(not torch.allclose(alone_, found[k]) for k, alone_ in gradients(alone).items())


def _store(rank: int) -> None:
    """What one process has stored is read into shards, and the other way round."""
    torch.manual_seed(7)
    whole, ours = Steps("bert"), Steps("bert")
    shard(ours, ours.network, init_device_mesh("cpu", (2,)))
    states = []
    for module in (whole, ours):
        # Groups in another order than the module's: an optimiser counts by groups.
        plain = [p for p in module.parameters() if p.ndim < 2]
        rest = [p for p in module.parameters() if p.ndim >= 2]
        optimizer = torch.optim.AdamW([{"params": plain}, {"params": rest}], lr=0.1)
        for step in (0, 1):
            optimizer.zero_grad()
            sum(module.training_step(tokens_of(step)) for _ in "a").backward()  # type: ignore[union-attr]
            optimizer.step()
        states.append((optimizer, whole_state(module), _whole(optimizer.state_dict())))
    torch.testing.assert_close(states[0][1], states[1][1], rtol=1e-3, atol=1e-4)
    _, weights, moments = states[0]
    optimizer = states[1][0]
    load_whole_state(ours, weights)
    optimizer.load_state_dict(_cut_states(moments, optimizer))
    for mine, theirs in ((whole_state(ours), weights), (_whole(optimizer.state_dict()), moments)):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def _rank(rank: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    for name in MADE:
        _compare(rank, name)
        Path(f"{rendezvous}-{rank}-{name}").touch()
    _store(rank)
    Path(f"{rendezvous}-{rank}-stored").touch()
    distributed.destroy_process_group()


def test_gradients_and_states_in_shards_are_those_of_whole_weights(tmp_path: Path) -> None:
    """Of four architectures, packed or not, the encoder called by hand as well."""
    spawn(_rank, args=(str(tmp_path / "meet"),), nprocs=2)
    done = {path.name for path in tmp_path.glob("meet-*")}
    assert done == {f"meet-{rank}-{part}" for rank in (0, 1) for part in (*MADE, "stored")}


@pytest.mark.parametrize("name", MADE)
def test_the_layers_are_found(name: str) -> None:
    layers = list(layers_of(MADE[name]()))
    assert [type(layer).__name__.endswith("Layer") for layer in layers] == [True, True]
