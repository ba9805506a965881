"""Steps that are recorded and replayed: which can be, and what a recording reads."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.masking_utils import bidirectional_mask_function

from calib_ebm.energy import packed as packed_room
from calib_ebm.energy import packing as packing_room
from calib_ebm.energy.attend import Ends
from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.energy.packing import Packing
from calib_ebm.errors import InputError, TrainingFailed
from calib_ebm.learn import graphed as room
from calib_ebm.learn.graphed import Given, GraphedSteps, Recorded, _copied, build_steps
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.joint_scores import score_joint
from calib_ebm.learn.optimisation import OptimOptions
from calib_ebm.learn.recordable import Circumstances, check_graphs
from calib_ebm.loss.gate import LabelGate
from calib_ebm.loss.joint import JointLoss, LossParts
from calib_ebm.loss.labels import LabelLoss
from calib_ebm.loss.mixup import Mixup
from calib_ebm.loss.poscal import PosCal
from calib_ebm.shapes import JointBatch, TokenBatch
from tests.energy.test_rows import by_text
from tests.learn.training import loader_of, module_of, quiet_trainer

CPU = torch.device("cpu")
B, K = 6, 2


def network(energy: str = "hidden", dropout: float = 0.0) -> EnergyNetwork:
    torch.manual_seed(0)
    classifier = build_small_encoder(
        ("x", "y", "z"), 90, 1, 24, layers=3, width=32, heads=2, dropout=dropout
    )
    classifier.classifier.dropout.p = dropout
    return EnergyNetwork(classifier, build_energy(energy, 32, dropout)).train()


def batch(seed: int, longest: int = 22, noise: bool = True) -> JointBatch:
    """Of lengths that differ from seed to seed."""
    generator = torch.Generator().manual_seed(seed)
    rows = B + B * K * noise
    length_B = torch.randint(3, longest, (rows,), generator=generator)
    mask_BT = (torch.arange(24) < length_B[:, None]).long()
    ids_BT = torch.randint(5, 90, mask_BT.shape, generator=generator) * mask_BT + (1 - mask_BT)
    label_SK = torch.randint(-1, 3, (B, K), generator=generator) if noise else None
    label_B = torch.randint(3, (B,), generator=generator)
    tokens = TokenBatch(ids_BT, mask_BT, None, length_B.numpy())
    return JointBatch(tokens, label_B, torch.arange(B), label_SK)


def gradients(net: EnergyNetwork) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def gate() -> LabelGate:
    opened = LabelGate(0.5, (4, 5, 6))
    opened.mean_ce.fill_(opened.entropy * 0.8)
    return opened


# -------------------------------------------------------------------- where it cannot be


GPU = torch.device("cuda")
CASES: list[tuple[str, Circumstances, Any]] = [
    ("on cpu", Circumstances(CPU, "bf16-mixed", True), None),
    ("several processes", Circumstances(GPU, "bf16-mixed", False), None),
    ("precision is 32-true", Circumstances(GPU, "32-true", True), None),
    ("several parts", Circumstances(GPU, "bf16-mixed", True, 2), None),
    ("several parts", Circumstances(GPU, "bf16-mixed", True, chunks=True), None),
    ("keeps something", Circumstances(GPU, "bf16-mixed", True, language=True), None),
    ("keeps something", Circumstances(GPU, "bf16-mixed", True), Mixup()),
    ("keeps something", Circumstances(GPU, "bf16-mixed", True), PosCal(3)),
]


@pytest.mark.parametrize(("why", "circumstances", "label"), CASES)
def test_what_cannot_be_recorded_is_not_and_refused_when_asked_for(
    why: str, circumstances: Circumstances, label: LabelLoss | None
) -> None:
    passes, loss = build_passes(network(), 3), JointLoss(label=label)
    for asked in ("auto", False):
        assert build_steps(asked, passes, loss, lambda: None, circumstances) is None
    with pytest.raises(InputError, match=why):
        build_steps(True, passes, loss, lambda: None, circumstances)


def test_texts_in_groups_and_energies_that_ask_the_host_cannot_be_recorded() -> None:
    here = Circumstances(GPU, "bf16-mixed", True)
    with pytest.raises(InputError, match="one row"):
        build_steps(True, Grouped(network(), 3), JointLoss(), lambda: None, here)
    with pytest.raises(InputError, match="asks the host"):
        build_steps(True, build_passes(network("self_sampled"), 3), JointLoss(), print, here)


TRAINER = {
    "graphs": True,
    "accelerator": "auto",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "auto",
    "noise_chunk": None,
}


@pytest.mark.parametrize(
    ("setting", "label", "why"),
    [
        ({"graphs": "always"}, None, "graphs is 'always'"),
        ({"graphs": 1}, None, "graphs is 1"),
        ({"graphs": None}, None, "graphs is None"),
        ({"accelerator": "cpu"}, None, "is on cpu"),
        ({"strategy": "ddp"}, None, "several processes"),
        ({"devices": 2}, None, "several processes"),
        ({"devices": [0, 1]}, None, "several processes"),
        ({"num_nodes": 2}, None, "several processes"),
        ({"precision": "32-true"}, None, "precision is 32-true"),
        ({"noise_chunk": 4}, None, "several parts"),
        ({}, PosCal(3), "keeps something"),
    ],
)
def test_what_is_known_to_be_impossible_is_refused_at_once(
    setting: dict[str, Any], label: LabelLoss | None, why: str
) -> None:
    loss = JointLoss(label=label)
    with pytest.raises(InputError, match=why):
        check_graphs({**TRAINER, **setting}, loss, False)
    if "graphs" not in setting:
        for asked in ("auto", False):
            check_graphs({**TRAINER, **setting, "graphs": asked}, loss, False)
    for one in (1, "auto", -1, [3], "0,"):
        check_graphs({**TRAINER, "devices": one}, JointLoss(), False)
    with pytest.raises(InputError, match="keeps something"):
        check_graphs(TRAINER, JointLoss(), True)


def test_a_weight_may_rise_by_a_number_on_the_device() -> None:
    for ramp in (0.0, 0.4, 1.0):
        loss = JointLoss(2.0, ramp)
        for progress in (0.0, 0.1, 0.4, 0.9, 1.0):
            assert float(loss.weight_at(torch.tensor(progress))) == pytest.approx(
                float(loss.weight_at(progress))
            )


# -------------------------------------------------------------------- what is recorded, by hand


class _ByHand(GraphedSteps):
    """Where there is no GPU: a graph that computes what was recorded, from the same tensors."""

    def _record(self, given: Given, packing: Packing, batch: JointBatch) -> Recorded:
        given = _copied(given)
        packing.ends, packing.first_B, packing.is_recorded = given.ends, given.first_B, True
        _ = packing.each_one
        kept = [_copied(each) for each in self._step(given, packing, batch)]

        class Graph:
            """As a CUDA graph does, into the same places."""

            def replay(graph) -> None:  # self is the steps'
                again = self._step(given, packing, batch)
                for place, value in zip(_flat(kept), _flat(again), strict=True):
                    place.copy_(value)

        self.reseed()
        return Recorded(Graph(), given, packing, *kept)  # type: ignore[arg-type]


def _flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values.detach()]
    parts = values.values() if isinstance(values, dict) else values
    return [] if values is None else [each for part in parts for each in _flat(part)]


class _Reads(TorchDispatchMode):
    """Storages that are read within and were not made there."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[int] = set()
        self.read: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """One operator."""
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in self.made:
                storage = each.untyped_storage()
                self.read.setdefault(storage.data_ptr(), weakref.ref(storage))
        out = func(*args, **(kwargs or {}))
        self.made |= {
            each.untyped_storage().data_ptr()
            for each in tree_leaves(out)
            if isinstance(each, Tensor)
        } - self.read.keys()
        return out


class _NoGraph:
    """In place of CUDA's graphs and streams."""

    def replay(self) -> None:
        """Nothing."""

    def pool(self) -> None:
        """None."""

    def wait_stream(self, other: Any) -> None:
        """Nothing."""


def test_whatever_a_recording_reads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph reads where a tensor lay, whoever has that memory by then.

    Places that were made for a recording and let go were read from memory that was another's: on a
    GPU an illegal access, in the first step of a training.
    """
    reads = _Reads()
    monkeypatch.setattr(packing_room, "takes_rows", lambda *_: True)
    monkeypatch.setattr(packing_room, "attend_in_row", at_most(by_text))
    for name in ("Stream", "CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, _NoGraph)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: reads)
    steps = GraphedSteps(
        Packed(network("labelled").double(), 3), JointLoss(2.0, 0.5, gate=gate()), lambda: None
    )
    assert steps(batch(0), 0.3) is not None
    gc.collect()
    assert len(reads.read) > 40  # weights, and what the batch gave
    gone = [place for place, kept in reads.read.items() if kept() is None]
    assert not gone
    # The control: let go of a recording, and it shows.
    steps.recorded.clear()
    gc.collect()
    assert any(kept() is None for kept in reads.read.values())


@pytest.mark.parametrize("energy", ["none", "scalar", "hidden", "labelled"])
def test_what_is_recorded_reads_nothing_but_what_is_copied_into_it(
    energy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed for other batches of its shape, it gives their scores, losses and gradients."""
    monkeypatch.setattr(packing_room, "takes_rows", lambda *_: True)
    monkeypatch.setattr(packing_room, "attend_in_row", at_most(by_text))
    net = network(energy).double()
    loss = JointLoss(2.0, ramp=0.5, gate=gate())
    passes = Packed(net, 3)
    steps = _ByHand(passes, loss, lambda: None)
    for seed, progress in ((0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4), (4, 0.9), (0, 1.0)):
        joint = batch(seed, 9 if seed == 3 else 22, noise=energy != "none")
        done = steps(joint, progress)
        assert done is not None
        found = gradients(net)
        net.zero_grad()
        scores = score_joint(passes, joint)
        parts = loss(scores.logits_BC, joint.label_B, *scores[1:], progress=progress)
        parts.total.backward()
        torch.testing.assert_close(done[0], scores, rtol=0, atol=1e-9)
        torch.testing.assert_close(done[1].total, parts.total, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found, gradients(net), rtol=1e-6, atol=1e-6)
        assert not done[0].logits_BC.requires_grad
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.05 * torch.randn_like(parameter)
    # The first two batches are alike in shape and not in lengths.
    assert 1 < len(steps.recorded) < 5


def at_most(attention: Any) -> Any:
    """The bound that a kernel is told need not be reached."""

    def bounded(query: Tensor, key: Tensor, value: Tensor, ends: Ends, *further: Any) -> Tensor:
        most = [int(each.diff().max()) for each in ends[:2]]
        assert most[0] <= ends.most_queries and most[1] <= ends.most_keys
        out: Tensor = attention(query, key, value, Ends(*ends[:2], *most), *further)
        return out

    return bounded


def test_more_shapes_than_are_kept_are_computed_as_they_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing_room, "takes_rows", lambda *_: True)
    monkeypatch.setattr(packing_room, "attend_in_row", at_most(by_text))
    monkeypatch.setattr(room, "MOST", 1)
    steps = _ByHand(Packed(network().double(), 3), JointLoss(), lambda: None)
    assert steps(batch(0), 1.0) is not None
    assert steps(batch(3, 9), 1.0) is None
    assert steps(batch(0), 1.0) is not None
    unknown = batch(0)
    assert steps(unknown._replace(tokens=unknown.tokens._replace(length_B=None)), 1.0) is None


def test_a_step_that_pads_is_not_recorded() -> None:
    steps = _ByHand(Packed(network().double(), 3), JointLoss(), lambda: None)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        steps(batch(0), 1.0)


def test_a_pass_that_is_recorded_has_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers makes one then, where it leaves it out elsewhere."""
    asked = {"q_length": 5, "kv_length": 5, "allow_is_bidirectional_skip": True}
    mask_BT = torch.ones(1, 5, dtype=torch.bool)
    mask_BT[0, 3:] = False
    monkeypatch.setattr(packed_room, "is_being_recorded", lambda: True)
    assert packed_room.row_mask(1, **asked) is None
    for kept in ({"attention_mask": mask_BT}, {"local_size": 3}):
        options = {"mask_function": bidirectional_mask_function, **asked, **kept}
        assert packed_room.row_mask(1, **options) is not None


# -------------------------------------------------------------------- a loss that is not finite


class _Far(JointModule):
    """As on a GPU, where losses are looked at."""

    def _checks_late(self) -> bool:
        return True


def fitted(module: JointModule, batches: list[JointBatch]) -> None:
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0, val_check_interval=2)
    trainer.fit(module, loader_of(batches), loader_of([batch(9, noise=False)]))


def far_module() -> JointModule:
    optim = OptimOptions(lr=1e-3, total_steps=3, warmup_steps=0)
    return module_of(network(), JointLoss(), optim, _Far)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_loss_that_is_not_finite_is_found_a_step_later_and_in_the_last_step(bad: int) -> None:
    """The step that is named is the one whose loss it was; nothing is measured after it."""
    module = far_module()

    def spoil(classifier: Any, _: Any) -> None:
        if classifier.training and module.trainer.global_step == bad:
            with torch.no_grad():
                classifier.classifier.out_proj.bias.fill_(torch.nan)

    module.network.classifier.register_forward_pre_hook(spoil)
    with pytest.raises(TrainingFailed, match=f"at step {bad} "):
        fitted(module, [batch(seed) for seed in range(3)])
    # Found when the next step begins, when it would be measured, or when there is no other.
    assert module.trainer.global_step == bad + 1


def test_no_checkpoint_holds_what_a_loss_that_is_not_finite_has_moved() -> None:
    module = far_module()
    nan = torch.tensor(torch.nan)
    module.watch.note(7, LossParts(nan, nan, nan, None, {}))
    with pytest.raises(TrainingFailed, match="at step 7 "):
        module.on_save_checkpoint({})
    module.on_save_checkpoint({})  # said once
