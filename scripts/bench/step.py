"""The joint step: ours, the reference's recipe, and the floor.

All three train the same weights on the same texts, with the same optimiser (torch's fused AdamW),
clipping and dropout:

    reference  K + 2 passes of the encoder over B texts, each padded to 128 tokens: one for the
               cross-entropy, one for the energy of the data, one for each of K noise texts a text;
               each with a backward of its own and its graph retained until the step is done
    ours       as `calib_ebm.train` does it: packed, one pass over all B (K + 1) texts; of the last
               layer is computed what first tokens need. The same with the noise in chunks
    floor      one pass over texts that are all of one length, so without a mask or padding: as many
               real tokens, and each sees as many as it does on the mean in the joint step

Before anything is timed, ours and the reference's loss and gradients are shown to be the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from bench.lengths import MAX_LENGTH, joint_batch_of, lengths_of, padded_to
from bench.memory import peak_of
from bench.models import SIZES
from bench.rows import Options, Row, compared, in_turn, say
from calib_ebm.energy.dropout import exchange_dropout
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.energy.packing import pack
from calib_ebm.learn.chunks import backward_of_noise, without_noise
from calib_ebm.learn.joint_scores import StepScores, score_joint
from calib_ebm.learn.optimisation import OptimOptions, build_optimizer
from calib_ebm.loss.joint import JointLoss
from calib_ebm.shapes import JointBatch, TokenBatch

PART = "step"
REFERENCE = "theirs: the reference's recipe, K + 2 passes padded to 128, each with its own backward"
FLOOR = "theirs: the floor, as many real tokens in texts of one length; ratio: ours / theirs"
CHUNKS = (
    "theirs: ours with trainer.noise_chunk, as many noise texts at a time as data; ratio: how "
    "many times as long that takes"
)
LAYERS = (
    "ours: tokens that all layers but the last compute (that one: first tokens, keys and values), "
    "theirs: real ones; ratio: share that is real"
)
MEMORY = (
    "peak memory of tensors in a step; ours: noise in chunks of B, theirs: K = 1 in one pass; "
    "ratio: ours / theirs"
)
ATTENTION = "ours: pairs of tokens attention computes, theirs: real ones; ratio: share real"
GROUPS = 8
"""As trainer.length_groups."""


@dataclass(frozen=True)
class Case:
    """What a step is made of.

    Args:
        size: a key of `SIZES`.
        task: whose lengths texts have.
        texts: B.
        per_text: K.
        bf16: computed under autocast.
        rounds: how often, if the options do not say.
        speed: at least wanted against the reference; None: no target.
    """

    size: str
    task: str
    texts: int
    per_text: int
    bf16: bool = False
    rounds: int = 5
    speed: float | None = None

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.size} {self.task} K={self.per_text}{' bf16' if self.bf16 else ''}"


CASES = (
    Case("embedded", "embedded", 32, 1, rounds=15),
    Case("embedded", "embedded", 32, 8, rounds=15),
    Case("minilm", "sst2", 32, 1),
    Case("minilm", "sst2", 32, 8, speed=6.0),
    Case("minilm", "sst2", 32, 8, bf16=True),
    Case("minilm", "mrpc", 16, 1),
    Case("minilm", "mrpc", 16, 8, speed=3.0),
    Case("minilm", "rte", 16, 8),
    Case("roberta_base", "sst2", 8, 1, rounds=1),
    Case("roberta_base", "sst2", 8, 8, rounds=1),
)
SHORT = (Case("embedded", "sst2", 16, 4, rounds=5),)
CHECKED = Case("embedded", "sst2", 4, 2)


class Trained:
    """A network with its optimiser: what a step moves.

    The learning rate is so small that all methods keep on comparing the same weights.
    """

    def __init__(self, network: EnergyNetwork, bf16: bool) -> None:
        self.network, self.bf16 = network, bf16
        options = OptimOptions(lr=1e-12, total_steps=10**6, warmup_steps=0)
        self.optimizer, self.schedule = build_optimizer(network, options)

    def autocast(self) -> torch.autocast:
        """Where passes are computed."""
        device = next(self.network.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.bf16)

    def move(self) -> None:
        """Clip, step, forget the gradients."""
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def reference_backward(trained: Trained, batch: JointBatch) -> float:
    """The gradients of the reference's recipe; the loss.

    L_NCE as in `loss/nce.py`, not as the reference writes it: the gradient is the same.
    """
    network, size = trained.network, len(batch.label_B)
    per_text = batch.tokens.input_ids_BT.shape[0] // size - 1
    log_k, kept = math.log(per_text), []

    def backward(part: Callable[[Tensor, Tensor], Tensor], rows: slice) -> None:
        with trained.autocast():
            logits_BC, energy_B = network(padded_to(batch.tokens, rows, MAX_LENGTH))
        assert energy_B is not None
        loss = part(_wide(logits_BC), _wide(energy_B))
        loss.backward(retain_graph=True)
        kept.append(loss)

    backward(lambda logits_BC, _: cross_entropy(logits_BC, batch.label_B), slice(size))
    backward(lambda _, energy_B: softplus(energy_B + log_k).mean(), slice(size))
    for k in range(per_text):
        rows = slice(size + k, None, per_text)
        backward(lambda _, energy_B: softplus(-energy_B - log_k).mean(), rows)
    return sum(loss.item() for loss in kept)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype.itemsize >= 4 else values.float()


def our_backward(
    trained: Trained, passes: Any, batch: JointBatch, chunk: int | None = None
) -> float:
    """The gradients as the training computes them; the loss.

    Args:
        trained: ours.
        passes: its passes.
        batch: data and noise.
        chunk: as trainer.noise_chunk.
    """
    loss = JointLoss()
    with trained.autocast():
        if chunk is None:
            scores = score_joint(passes, batch)
        else:
            energy_SK = backward_of_noise(
                passes, batch, loss, chunk, progress=1.0, backward=Tensor.backward
            )
            logits_BC, energy_B, _ = score_joint(passes, without_noise(batch))
            scores = StepScores(logits_BC, energy_B, energy_SK)
        parts = loss(scores.logits_BC, batch.label_B, *scores[1:])
    parts.total.backward()
    return parts.total.item()


def floor_backward(trained: Trained, tokens: TokenBatch, label_B: Tensor) -> float:
    """The gradients of a cross-entropy of texts of one length."""
    with trained.autocast():
        logits_BC = trained.network.classifier(tokens.input_ids_BT).logits
    loss = cross_entropy(_wide(logits_BC), label_B)
    loss.backward()
    return loss.item()


def floor_texts(batch: JointBatch) -> tuple[TokenBatch, Tensor]:
    """As many tokens as the batch's real ones, in texts of one length, and labels for them.

    The length is that of the text that a token is of, on the mean over tokens: what attention
    computes, the sum over texts of their lengths' squares, is as much too.
    """
    length_B = batch.tokens.attention_mask_BT.sum(dim=1)
    real = int(length_B.sum())
    length = round(int((length_B**2).sum()) / real)
    texts = max(1, round(real / length))
    id_N = batch.tokens.input_ids_BT[batch.tokens.attention_mask_BT.bool()]
    ids_BT = id_N.repeat(2)[: texts * length].view(texts, length)
    return TokenBatch(ids_BT, torch.ones_like(ids_BT), None), torch.arange(texts) % 2


@dataclass
class Setting:
    """A case, built.

    Args:
        ours: trained in packed passes.
        passes: these.
        theirs: the same weights, for the reference and the floor.
        batch: the texts.
    """

    ours: Trained
    passes: Packed
    theirs: Trained
    batch: JointBatch

    def functions(self) -> dict[str, Callable[[], None]]:
        """A step of each."""
        tokens, label_B = floor_texts(self.batch)

        def ours() -> None:
            our_backward(self.ours, self.passes, self.batch)
            self.ours.move()

        def reference() -> None:
            reference_backward(self.theirs, self.batch)
            self.theirs.move()

        def chunks() -> None:
            our_backward(self.ours, self.passes, self.batch, len(self.batch.label_B))
            self.ours.move()

        def floor() -> None:
            floor_backward(self.theirs, tokens, label_B)
            self.theirs.move()

        return {"ours": ours, "reference": reference, "floor": floor, "chunks": chunks}


def build(case: Case, options: Options, device: str = "cpu") -> Setting:
    """The networks and texts of a case on a device, ready to train."""
    torch.manual_seed(0)
    with torch.device(device):
        classifier: Any = SIZES[case.size]()
    ours = EnergyNetwork(classifier, build_energy("hidden", classifier.config.hidden_size, 0.1))
    theirs = copy.deepcopy(ours)
    passes = build_passes(ours, GROUPS)
    assert isinstance(passes, Packed), "these encoders can be packed"
    batch = build_batch(case, ours, options, device)
    exchange_dropout(ours.train().to(device))
    theirs.train().to(device)
    return Setting(Trained(ours, case.bf16), passes, Trained(theirs, case.bf16), batch)


def build_batch(
    case: Case, network: EnergyNetwork, options: Options, device: str = "cpu"
) -> JointBatch:
    """The texts of a case, moved as Lightning moves them."""
    config: Any = network.encoder.config
    batch = joint_batch_of(
        lengths_of(case.task, options),
        case.texts,
        case.per_text,
        config.vocab_size,
        config.pad_token_id,
    )
    moved: JointBatch = move_data_to_device(batch, torch.device(device))
    return moved


def check_same() -> None:
    """Ours and the reference compute the same loss and gradients: without dropout, in float64.

    Raises:
        RuntimeError: when they do not, so that no ratio of different things is reported.
    """
    setting = build(CHECKED, Options())
    for each in (setting.ours, setting.theirs):
        each.network.double().eval()
    losses = (
        our_backward(setting.ours, setting.passes, setting.batch),
        reference_backward(setting.theirs, setting.batch),
    )
    pairs = zip(setting.ours.network.parameters(), setting.theirs.network.parameters(), strict=True)
    for ours, theirs in pairs:
        if ours.grad is None and theirs.grad is None:
            continue
        assert ours.grad is not None
        if theirs.grad is None or not torch.allclose(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10):
            raise RuntimeError("our gradients are not those of the reference's recipe")
    if not math.isclose(*losses, rel_tol=1e-10):
        raise RuntimeError(f"our loss is {losses[0]}, the reference's {losses[1]}")


def shares(case: Case, batch: JointBatch) -> list[Row]:
    """How much of what is computed is real: tokens in the layers, pairs of tokens in attention."""
    mask_BT = batch.tokens.attention_mask_BT
    length_B, places = mask_BT.sum(dim=1), pack(batch.tokens, GROUPS).padded
    real, pairs = int(length_B.sum()), int((length_B**2).sum())
    in_attention = sum(group.texts * group.length**2 for group in places.groups)
    in_layers = len(places.real_N)
    return [
        _share(case, LAYERS, in_layers, real, "at least 0.95"),
        _share(case, ATTENTION, in_attention, pairs, ""),
    ]


def _share(case: Case, note: str, computed: int, real: int, wanted: str) -> Row:
    share = real / computed
    return Row(PART, case.name, computed, real, share, share, share, note, "", wanted)


def memory(case: Case, options: Options) -> Row:
    """Peak bytes of tensors in a step's backward: K in chunks of B against K = 1 in one pass."""

    def peak(per_text: int, chunk: int | None) -> float:
        setting = build(replace(case, per_text=per_text), options)
        trained, passes, batch = setting.ours, setting.passes, setting.batch
        return peak_of(lambda: our_backward(trained, passes, batch, chunk)) / 2**20

    return memory_row(
        PART, case, peak(case.per_text, case.texts), peak(1, None), peak(case.per_text, None)
    )


def memory_row(part: str, case: Case, chunks: float, one: float, at_once: float) -> Row:
    """MiB of a step's tensors with noise in chunks of B, of K = 1 in one pass, of all at once."""
    return compared(
        part,
        case.name,
        [chunks],
        [one],
        note=MEMORY,
        unit="MB",
        wanted="at most 1.5",
        inverse=True,
        further={"at once, MB": at_once},
    )


def measure(options: Options) -> Iterator[Row]:
    """The rows of every case that is asked for."""
    check_same()
    for case in SHORT if options.short else CASES:
        if not options.takes(case.name):
            continue
        say(f"step: {case.name}")
        setting = build(case, options)
        rounds = options.rounds or case.rounds
        seconds = in_turn(setting.functions(), rounds, warm_up=1 if rounds > 1 else 0)
        yield from speeds(case, seconds)
        yield from shares(case, setting.batch)
        del setting
        if case.per_text > 1 and case.size != "roberta_base":
            yield memory(case, options)


def speeds(case: Case, seconds: dict[str, list[float]]) -> list[Row]:
    """Against the reference and against the floor."""
    ours = seconds["ours"]
    wanted = f"at least {case.speed:g}" if case.speed else ""
    return [
        compared(PART, case.name, ours, seconds["reference"], note=REFERENCE, wanted=wanted),
        compared(
            PART,
            case.name,
            ours,
            seconds["floor"],
            note=FLOOR,
            inverse=True,
            wanted="at most 1.10" if case.size == "minilm" and case.per_text == 8 else "",
        ),
        compared(PART, case.name, ours, seconds["chunks"], note=CHUNKS),
    ]
