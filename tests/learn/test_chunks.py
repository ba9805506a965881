"""Noise in chunks: the gradients of one pass, in the memory of a chunk."""

from __future__ import annotations

import csv
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.errors import InputError
from calib_ebm.learn.chunks import backward_of_noise, check_chunk, without_noise
from calib_ebm.learn.joint_scores import score_joint
from calib_ebm.learn.optimisation import OptimOptions
from calib_ebm.learn.run import run
from calib_ebm.loss.joint import JointLoss, LossParts
from calib_ebm.shapes import JointBatch, TokenBatch
from tests.learn.training import loader_of, module_of, quiet_trainer

Settings = Callable[..., dict[str, Any]]
B, K = 6, 4
LOSS = JointLoss(0.7, ramp=0.5)


def network(name: str, dropout: float = 0.0, width: int = 16) -> EnergyNetwork:
    torch.manual_seed(0)
    classifier = build_small_encoder(
        ("x", "y", "z"), 90, 1, 24, layers=2, width=width, heads=2, dropout=dropout
    )
    classifier.classifier.dropout.p = dropout
    net = EnergyNetwork(classifier, build_energy(name, width, dropout)).double().train()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter *= 8
    return net


def batch(texts: int = B, with_noise: int = B, per_text: int = K) -> JointBatch:
    """Noise for some of the texts only, where `with_noise` is smaller."""
    torch.manual_seed(2)
    length_B = torch.randint(3, 22, (texts + with_noise * per_text,))
    length_B[texts] = 24  # a noise text is the longest
    mask_BT = (torch.arange(24) < length_B[:, None]).long()
    ids_BT = torch.where(mask_BT.bool(), torch.randint(5, 90, mask_BT.shape), 1)
    label_SK = torch.randint(-1, 3, (with_noise, per_text))
    tokens = TokenBatch(ids_BT, mask_BT, None)
    return JointBatch(tokens, torch.randint(3, (texts,)), torch.arange(texts), label_SK)


def at_once(passes: Any, joint: JointBatch) -> LossParts:
    scores = score_joint(passes, joint)
    parts = LOSS(scores.logits_BC, joint.label_B, *scores[1:], progress=0.3)
    parts.total.backward()
    return parts


def in_chunks(passes: Any, joint: JointBatch, chunk: int) -> LossParts:
    energy_SK = backward_of_noise(
        passes, joint, LOSS, chunk, progress=0.3, backward=lambda part: part.backward()
    )
    scores = score_joint(passes, without_noise(joint))
    parts = LOSS(scores.logits_BC, joint.label_B, scores.energy_data_B, energy_SK, progress=0.3)
    parts.total.backward()
    return parts


def gradients(net: EnergyNetwork) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    return found


@pytest.mark.parametrize("how", [Grouped, build_passes])
@pytest.mark.parametrize("name", ["scalar", "hidden", "sharp_hidden", "noise_labelled"])
@pytest.mark.parametrize("chunk", [1, 7, B, B * K, 1000])
def test_chunks_add_up_to_one_pass(chunk: int, name: str, how: Any) -> None:
    net, joint = network(name), batch()
    passes = how(net, 3)
    assert isinstance(passes, Packed) == (how is build_passes)
    theirs, theirs_grad = at_once(passes, joint), gradients(net)
    ours, ours_grad = in_chunks(passes, joint, chunk), gradients(net)
    for one, other in zip(ours[:4], theirs[:4], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    assert ours_grad.keys() == theirs_grad.keys() == dict(net.named_parameters()).keys()
    for parameter, grad in ours_grad.items():
        torch.testing.assert_close(grad, theirs_grad[parameter], rtol=0, atol=1e-10)
    assert max(grad.abs().max() for grad in ours_grad.values()) > 1e-2


def test_the_control_of_the_test_above() -> None:
    """Without a chunk's gradients, or with another chunk's labels, they are others."""
    net, joint = network("noise_labelled"), batch()
    passes = build_passes(net, 3)
    at_once(passes, joint)
    theirs = gradients(net)
    for wrong in ("chunk left out", "labels of others"):
        left = iter([True])
        labels_SK = joint.noise_label_SK
        assert labels_SK is not None
        other = (
            joint
            if wrong == "chunk left out"
            else joint._replace(noise_label_SK=labels_SK.roll(1, dims=0))
        )
        backward_of_noise(
            passes,
            other,
            LOSS,
            8,
            progress=0.3,
            backward=lambda part, w=wrong, once=left: (
                None if w == "chunk left out" and next(once, False) else part.backward()
            ),
        )
        scores = score_joint(passes, without_noise(joint))
        nothing_SK = torch.zeros(B, K).double()
        LOSS(
            scores.logits_BC, joint.label_B, scores.energy_data_B, nothing_SK, progress=0.3
        ).total.backward()
        ours = gradients(net)
        assert max((ours[n] - theirs[n]).abs().max() for n in theirs) > 1e-3, wrong


def test_a_chunk_is_encoded_without_the_padding_of_others() -> None:
    seen: list[tuple[int, ...]] = []
    net, joint = network("hidden"), batch()
    net.classifier.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    in_chunks(Grouped(net), joint, 7)
    length_B = joint.tokens.attention_mask_BT.sum(dim=1)
    starts = [*range(B, B + B * K, 7)]
    rows = [range(start, min(start + 7, B + B * K)) for start in starts] + [range(B)]
    assert seen == [(len(r), int(length_B[list(r)].max())) for r in rows]
    assert min(width for _, width in seen) < 24


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made within held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(out):
            if isinstance(each, Tensor):
                self._meet(each.untyped_storage())
        return out

    def _meet(self, storage: Any) -> None:
        place = storage.data_ptr()
        if place == 0 or place in self.known:
            return
        self.known[place] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place)

    def _gone(self, place: int) -> None:
        self.now -= self.known.pop(place, 0)


def peak(per_text: int, chunk: int | None) -> int:
    net = network("hidden", dropout=0.1, width=64)
    passes, joint = build_passes(net, 3), batch(32, 32, per_text)
    with PeakBytes() as bytes_held:
        if chunk is None:
            at_once(passes, joint)
        else:
            in_chunks(passes, joint, chunk)
    return bytes_held.peak


def test_k_8_in_chunks_takes_the_memory_of_k_1() -> None:
    one = peak(1, None)
    assert peak(8, 32) <= 1.5 * one
    assert peak(8, None) > 3 * one  # the control


@pytest.fixture
def still(settings: Settings) -> Settings:
    """Without dropout, whose draws are not the same in chunks."""
    words = ("encoder.small.dropout=0", "energy=scalar", "energy.dropout=0", "noise.per_text=3")
    return lambda *more, run: settings(*words, *more, run=run)


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def run_of(config: dict[str, Any]) -> Path:
    return run(config, lambda line: None)


@pytest.mark.parametrize("words", [(), ("trainer.precision=bf16-mixed",), ("loss=mixup",)])
def test_a_training_in_chunks_is_the_same_training(still: Settings, words: tuple[str, ...]) -> None:
    """Through Lightning: gradients are not forgotten, are clipped as a whole, move weights once."""
    clipped = ("trainer.gradient_clip_val=0.05",)
    runs = {
        name: history(run_of(still(*words, *more, run=name)))
        for name, more in {
            "once": clipped,
            "chunks": (*clipped, "trainer.noise_chunk=5"),
            "unclipped": ("trainer.gradient_clip_val=100",),
        }.items()
    }
    # A run's last steps show what all steps before did.
    last = {name: rows[-1]["loss/total"] for name, rows in runs.items()}
    near = 2e-2 if "bf16" in "".join(words) else 1e-5
    assert abs(last["chunks"] - last["once"]) < near * last["once"]
    if not words:
        assert abs(last["unclipped"] - last["once"]) > 1e-3
    for ours, theirs in zip(runs["chunks"], runs["once"], strict=True):
        for name in ("loss/nce", "energy/noise", "nce/accuracy"):
            if name in theirs:
                assert abs(ours[name] - theirs[name]) < max(near * abs(theirs[name]), near)


def weights_after(chunk: int | None, accumulate: int) -> list[Tensor]:
    """Of two optimiser steps through a bare Lightning trainer."""
    net = network("hidden").float()
    # A large eps: else the step is the sign of a gradient, and of rounding where that is zero.
    optim = OptimOptions(lr=1e-2, total_steps=2, warmup_steps=0, eps=1e-2)
    module = module_of(net, LOSS, optim, noise_chunk=chunk)
    batches = [batch(texts, texts, 2) for texts in (4, 5, 6, 3)][: 2 * accumulate]
    trainer = quiet_trainer(max_epochs=1, accumulate_grad_batches=accumulate, gradient_clip_val=0.5)
    trainer.fit(module, loader_of(batches))
    assert trainer.global_step == 2
    return [p.detach().clone() for p in net.parameters()]


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def test_gradients_of_several_batches_are_added_up() -> None:
    """As accumulate_grad_batches has it; the first batch of the next step forgets them."""
    once, chunks = weights_after(None, 2), weights_after(4, 2)
    assert apart(once, chunks) < 1e-5
    assert apart(weights_after(None, 1), once) > 1e-3


@pytest.mark.parametrize("value", [0, -3, 2.5, True, "many"])
def test_a_chunk_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="noise_chunk"):
        check_chunk({"noise_chunk": value, "strategy": "auto"})
    assert check_chunk({"noise_chunk": None, "strategy": "fsdp"}) is None
    assert check_chunk({"noise_chunk": 4, "strategy": "ddp"}) == 4


def test_chunks_and_sharded_weights_are_refused() -> None:
    with pytest.raises(InputError, match="fsdp"):
        check_chunk({"noise_chunk": 4, "strategy": "fsdp"})
