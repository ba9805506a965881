"""What is decayed, and the schedule, against what transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaConfig,
    DebertaForSequenceClassification,
    get_linear_schedule_with_warmup,
)

from calib_ebm.energy.heads import ScalarEnergy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.learn.optimisation import (
    AdamWTowards,
    OptimOptions,
    build_optimizer,
    can_fuse,
    count_steps,
    linear_schedule,
    parameter_groups,
    starting_weights,
    trainable,
)
from tests.learn.training import quiet_trainer

SIZE = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


def network(kind: str) -> EnergyNetwork:
    torch.manual_seed(0)
    classifier = (
        BertForSequenceClassification(BertConfig(**SIZE))
        if kind == "bert"
        else DebertaForSequenceClassification(DebertaConfig(**SIZE))
    )
    return EnergyNetwork(classifier, ScalarEnergy(8))


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_biases_and_norms_are_not_decayed_and_all_else_is(kind: str) -> None:
    module = network(kind)
    names = {id(p): name for name, p in module.named_parameters()}
    decayed, plain = parameter_groups(module, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    ours = {names[id(p)] for p in plain["params"]}
    # The rule of the reference, on names: nothing with "bias" or "LayerNorm.weight" in it.
    theirs = {name for name in names.values() if "bias" in name or "LayerNorm.weight" in name}
    assert ours == theirs
    assert {names[id(p)] for p in decayed["params"]} == set(names.values()) - theirs
    some = {"bert": "energy.head.1.bias", "deberta": ".attention.self.q_bias"}[kind]
    assert any(name.endswith(some) for name in ours)


def test_any_normalisation_counts() -> None:
    module = nn.Sequential(nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.Linear(4, 4))
    decayed, plain = parameter_groups(module, 0.5)
    assert [p.shape for p in decayed["params"]] == [(4, 4)]
    assert len(plain["params"]) == 2 + 2 + 1 + 1
    (norm,) = parameter_groups(nn.LayerNorm(4), 0.5)[1:]  # the module itself, without a name
    assert len(norm["params"]) == 2


def test_what_is_frozen_is_in_neither_group() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    module[0].requires_grad_(False)
    decayed, plain = parameter_groups(module, 0.1)
    assert [p.shape for p in (*decayed["params"], *plain["params"])] == [(2, 3), (2,)]
    assert trainable(module.parameters()) == 2 * 3 + 2


@given(st.integers(0, 30), st.integers(1, 60))
def test_the_schedule_is_that_of_transformers(warmup: int, total: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
    for step in range(total + 3):
        assert linear_schedule(step, warmup, total) == pytest.approx(theirs(step), abs=1e-12)


def test_the_optimiser_is_as_set_and_follows_the_schedule() -> None:
    options = OptimOptions(
        lr=0.02, total_steps=6, warmup_steps=2, weight_decay=0.3, eps=1e-7, betas=(0.8, 0.95)
    )
    optimizer, scheduler = build_optimizer(nn.Linear(3, 2), options)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {(g["eps"], g["betas"]) for g in optimizer.param_groups} == {(1e-7, (0.8, 0.95))}
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, 0.0]
    rates = []
    for _ in range(6):
        rates.append({g["lr"] for g in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    expected = [0.0, 0.01, 0.02, 0.015, 0.01, 0.005]
    assert [rate for (rate,) in rates] == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_a_step_decays_the_matrix_and_not_the_bias() -> None:
    layer = nn.Linear(3, 2)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer, scheduler = build_optimizer(layer, OptimOptions(0.1, 10, 0, weight_decay=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    scheduler.step()
    torch.testing.assert_close(layer.weight.data, torch.full((2, 3), 1 - 0.1 * 0.5))
    assert torch.equal(layer.bias.data, torch.ones(2))


def test_a_step_decays_towards_where_it_began() -> None:
    layer = nn.Linear(3, 2)
    towards = starting_weights(layer)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
        layer.bias += 1
    bias = layer.bias.detach().clone()
    optimizer, _ = build_optimizer(layer, OptimOptions(0.1, 10, 0, weight_decay=0.5), towards)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # w - lr * decay * (w - w0), with w - w0 = 1; the bias is not decayed.
    torch.testing.assert_close(layer.weight.data, start + 1 - 0.1 * 0.5 * 1)
    assert torch.equal(layer.bias.data, bias)
    for _ in range(400):
        optimizer.step()
    torch.testing.assert_close(layer.weight.data, start)


def test_with_gradients_it_is_adam_s_step_and_the_decay() -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(3, 2), torch.randn(5, 3, 2)
    ours, adam = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    zero, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    how = {"lr": 0.1, "betas": (0.8, 0.9)}
    group = {"weight_decay": 0.3}
    towards = AdamWTowards([{"params": [ours], **group}], {ours: start}, **how)
    nowhere = AdamWTowards([{"params": [zero], **group}], {}, **how)
    plain = torch.optim.AdamW([{"params": [adam], "weight_decay": 0.0}], **how)
    torchs = torch.optim.AdamW([{"params": [theirs], **group}], **how)
    for grad in grads:
        for parameter in (ours, adam, zero, theirs):
            parameter.grad = grad.clone()
        expected = ours.detach() - 0.1 * 0.3 * (ours.detach() - start)
        before = adam.detach().clone()
        for optimizer in (towards, nowhere, plain, torchs):
            optimizer.step()
        torch.testing.assert_close(ours.data, expected + (adam.data - before))
        assert torch.equal(zero, theirs)
    assert (ours - start).norm() != (theirs - start).norm()


def test_weights_without_a_gradient_are_left_where_they_are() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    group = {"params": [weight], "weight_decay": 0.5}
    optimizer = AdamWTowards([group], {weight: torch.zeros(2, 2)}, lr=0.1)
    optimizer.step()
    assert torch.equal(weight.data, torch.ones(2, 2))


def test_another_aim_of_the_decay_is_refused() -> None:
    with pytest.raises(InputError, match=r"optim\.decay_towards is 'home'"):
        OptimOptions(0.1, 10, 0, decay_towards="home")


def test_steps_are_counted() -> None:
    assert count_steps(100, None, 3) == 300
    assert count_steps(100, None, 0.25) == 25
    assert count_steps(2, None, 0.1) == 1
    assert count_steps(100, 7, 3) == 7  # max_steps comes first


def test_the_fused_step_is_adamw() -> None:
    # Parity with the unfused step of torch, over steps, decay and schedule.
    ours, theirs = network("bert"), network("bert")
    options = OptimOptions(lr=1e-2, total_steps=20, warmup_steps=2, weight_decay=0.1)
    fused, schedule = build_optimizer(ours, options)
    assert fused.defaults["fused"] is True
    plain = torch.optim.AdamW(
        parameter_groups(theirs, 0.1), lr=1e-2, eps=options.eps, betas=options.betas, fused=False
    )
    their_schedule = get_linear_schedule_with_warmup(plain, 2, 20)
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        fused.step(), schedule.step(), plain.step(), their_schedule.step()
    for a, b, old in zip(ours.parameters(), theirs.parameters(), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not torch.equal(a, old)


def test_a_module_that_is_on_no_device_is_not_fused() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    assert not can_fuse(module)
    assert can_fuse(nn.Linear(2, 2))


class Line(pl.LightningModule):
    """y = 0 by a line that starts far from it; notes the norm of its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.before: list[float] = []
        self.stepped: list[float] = []

    def configure_optimizers(self) -> Any:
        return build_optimizer(self, OptimOptions(lr=1e-2, total_steps=4, warmup_steps=0))[0]

    def training_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        return (1000 * (self.line(batch[0]).float() - 10).square()).mean()

    def norm(self) -> float:
        return float(torch.stack([p.grad.norm() for p in self.parameters()]).norm())  # type: ignore[union-attr]  # all have one

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.before.append(self.norm())

    def on_train_batch_end(self, *_: Any) -> None:
        self.stepped.append(self.norm())


def test_gradients_are_clipped_under_mixed_precision(tmp_path: Path) -> None:
    # Lightning refuses to clip for optimisers that carry torch's mark of a fused step.
    module = Line()
    trainer = quiet_trainer(
        precision="bf16-mixed", max_steps=4, gradient_clip_val=1.0, default_root_dir=tmp_path
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.ones(4, 3)), batch_size=1))
    assert min(module.before) > 1
    assert module.stepped == pytest.approx([1.0] * 4)
