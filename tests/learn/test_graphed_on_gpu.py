"""On a GPU: recorded steps, replayed, are the steps, and a training with them the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from calib_ebm.energy.heads import ENERGIES
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.learn.graphed import GraphedSteps
from calib_ebm.learn.joint_scores import StepScores, score_joint
from calib_ebm.learn.optimisation import OptimOptions
from calib_ebm.loss.joint import JointLoss, LossParts
from calib_ebm.loss.labels import ConfidencePenalty, Focal, LabelSmoothing
from calib_ebm.shapes import JointBatch
from tests.learn.test_graphed import batch, gate, gradients, network
from tests.learn.training import loader_of, module_of, quiet_trainer

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def moved(joint: JointBatch) -> JointBatch:
    there: JointBatch = move_data_to_device(joint, torch.device("cuda"))
    return there


def computed(
    net: EnergyNetwork, loss: JointLoss, joint: JointBatch, progress: float
) -> tuple[StepScores, LossParts]:
    """As a step that is not recorded does it."""
    passes = build_passes(net, 3)
    net.zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        scores = score_joint(passes, joint)
        parts = loss(scores.logits_BC, joint.label_B, *scores[1:], progress=progress)
    parts.total.backward()
    return scores, parts


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


LABELS = {
    "cross_entropy": None,
    "label_smoothing": LabelSmoothing(),
    "focal": Focal(),
    "confidence_penalty": ConfidencePenalty(),
}


@on_a_gpu
@pytest.mark.parametrize("energy", ["none", *sorted(set(ENERGIES) - {"self_sampled"})])
@pytest.mark.parametrize("label", [*LABELS])
def test_a_replayed_step_is_the_step(energy: str, label: str) -> None:
    """Losses, scores and gradients, over batches of several shapes, with weights that move."""
    ours = network(energy).cuda()
    theirs = copy.deepcopy(ours)
    loss = JointLoss(2.0, ramp=0.5, label=copy.deepcopy(LABELS[label]), gate=gate()).cuda()
    passes = build_passes(ours, 3)
    assert isinstance(passes, Packed)
    steps = GraphedSteps(passes, loss, lambda: None)
    for seed, progress in ((0, 0.0), (1, 0.2), (2, 0.3), (0, 0.4), (3, 0.9)):
        joint = moved(batch(seed, 9 if seed == 3 else 22, noise=energy != "none"))
        with torch.autocast("cuda", torch.bfloat16):
            done = steps(joint, progress)
        assert done is not None
        scores, parts = computed(theirs, loss, joint, progress)
        for mine, other in zip(done[1][:4], parts[:4], strict=True):
            if other is not None:
                assert float(mine.detach()) == pytest.approx(
                    float(other.detach()), rel=1e-2, abs=1e-2
                )
        assert error(done[0].logits_BC, scores.logits_BC) < 2e-2
        assert error(gradients(ours), gradients(theirs)) < 3e-2
        assert error(gradients(ours) + gradients(theirs).roll(1), gradients(theirs)) > 0.5
        with torch.no_grad():
            for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                if other.grad is not None:
                    mine -= 0.05 * other.grad
                    other -= 0.05 * other.grad
        loss.gate.follow(parts.ce.detach())  # type: ignore[union-attr]  # there is one
    assert 1 < len(steps.recorded) < 5


@on_a_gpu
def test_dropout_of_a_replayed_step_follows_the_seed() -> None:
    net, joint = network(dropout=0.3).cuda(), moved(batch(0))
    passes = build_passes(net, 3)
    assert isinstance(passes, Packed)
    steps = GraphedSteps(passes, JointLoss(), lambda: torch.manual_seed(5) and None)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.autocast("cuda", torch.bfloat16):
            done = steps(joint, 1.0)
        assert done is not None
        return done[0].logits_BC

    first = drawn(5)  # recorded, and seeded anew
    assert torch.equal(drawn(5), first)
    assert (drawn(6) - first).abs().max() > 1e-2
    many = torch.stack([drawn(seed) for seed in range(400)]).double()
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        eager = []
        for seed in range(400):
            torch.manual_seed(seed + 1000)
            eager.append(score_joint(passes, joint).logits_BC)
    other = torch.stack(eager).double()
    spread = (many.var(dim=0) / 400 + other.var(dim=0) / 400).sqrt()
    assert ((many.mean(dim=0) - other.mean(dim=0)).abs() < 5 * spread + 2e-3).all()


@on_a_gpu
@pytest.mark.parametrize("graphs", ["auto", True])
def test_a_step_that_waits_for_the_gpu_is_computed_as_it_comes(graphs: Any) -> None:
    """Recording fails, and the training goes on, and says so, unless it was asked for."""

    class Waits(LabelSmoothing):
        def forward(self, logits_BC: Tensor, label_B: Tensor, again: Any = None) -> Any:
            assert logits_BC.sum().item() < 1e9
            return super().forward(logits_BC, label_B, again)

    optim = OptimOptions(lr=1e-3, total_steps=3, warmup_steps=0)
    torch.manual_seed(0)
    module = module_of(network(dropout=0.1), JointLoss(label=Waits()), optim, graphs=graphs)
    trainer = quiet_trainer("gpu", precision="bf16-mixed", max_epochs=1)
    loader = loader_of([batch(seed) for seed in range(3)])
    if graphs is True:
        with pytest.raises(RuntimeError):
            trainer.fit(module, loader)
        return
    before = copy.deepcopy(module.network.state_dict())
    trainer.fit(module, loader)
    assert trainer.global_step == 3 and module.steps is None
    assert len(module.complaints) == 1 and "not replayed" in module.complaints[0]
    after = module.network.cpu().state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert all(value.isfinite().all() for value in after.values())


@on_a_gpu
def test_a_training_with_graphs_ends_where_one_without_does() -> None:
    """Without dropout, through Lightning: the optimiser, clipping and the schedule included."""

    def trained(graphs: Any) -> dict[str, Tensor]:
        optim = OptimOptions(lr=3e-3, total_steps=8, warmup_steps=0, eps=1e-3)
        net = network("scalar")
        net.energy.head[0].p = net.energy.head[3].p = 0.0  # type: ignore[union-attr,index]
        module = module_of(net, JointLoss(), optim, graphs=graphs)
        trainer = quiet_trainer("gpu", precision="bf16-mixed", max_epochs=1, gradient_clip_val=0.5)
        trainer.fit(module, loader_of([batch(seed) for seed in range(8)]))
        assert (module.steps is not None) is bool(graphs)
        return {name: value.cpu().double() for name, value in module.network.state_dict().items()}

    ours, theirs, start = trained(True), trained(False), network("scalar").state_dict()
    moved_by = torch.cat([(theirs[n] - start[n].double()).flatten() for n in theirs])
    apart = torch.cat([(ours[n] - theirs[n]).flatten() for n in theirs])
    assert apart.norm() < 0.05 * moved_by.norm()
