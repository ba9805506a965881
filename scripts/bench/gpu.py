"""The joint step on a GPU: replayed, computed as it comes, the reference's recipe, the ceiling.

    replayed    as `calib_ebm.train` does it on one GPU with bf16-mixed: recorded as a CUDA graph
    eager       the same without recording (trainer.graphs=false)
    compiled    replayed, with torch.compile over all layers but the last
    reference   see step.py: K + 2 passes padded to 128, each with a backward of its own
    ceiling     a product of two square matrices of 8,192 in bf16, twice 8,192^3 operations

Operations of a step are counted as what the model needs, not as what is computed: products with
weights and of attention over real tokens, of the last layer what first tokens need, three times for
forward and backward; nothing of texts that fill a recorded shape, nothing of dropout.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from bench.rows import Options, Row, compared, in_turn, quartiles, say
from bench.step import (
    Case,
    Setting,
    Trained,
    build,
    build_batch,
    memory_row,
    our_backward,
    reference_backward,
)
from calib_ebm.energy import packed
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.energy.packing import row_attention
from calib_ebm.learn.graphed import GraphedSteps
from calib_ebm.loss.joint import JointLoss
from calib_ebm.shapes import JointBatch

PART = "gpu"
SIDE = 8192
WIDE = 768
"""Width from which on it is tried what compiling does."""
STEPS = 5
"""Steps between two looks at the clock: the host may run ahead within."""
CEILING = (
    "ours: operations a second (T: 10^12) of the replayed step, theirs: of a product of two "
    "matrices of 8,192 in bf16; ratio: share"
)
COMPILED = "ours: operations a second with torch.compile besides; ratio: share"
EAGER = "ours: replayed, theirs: the same as it comes"
REFERENCE = "ours: replayed, theirs: the reference's recipe, as it comes"
CASES = (
    Case("minilm", "sst2", 32, 1, bf16=True, rounds=5),
    Case("roberta_base", "sst2", 32, 8, bf16=True, rounds=5),
    Case("roberta_base", "mrpc", 32, 8, bf16=True, rounds=5),
)
SHORT = (Case("embedded", "sst2", 16, 2, bf16=True, rounds=2),)


class Sizes(NamedTuple):
    """Of an encoder."""

    hidden: int
    inner: int
    layers: int


def operations(length_B: torch.Tensor, sizes: Sizes) -> int:
    """Floating-point operations of a step over texts of these lengths; a product counts as two.

    >>> operations(torch.tensor([3, 5]), Sizes(2, 4, 1))
    864
    """
    hidden, inner, layers = sizes
    tokens, texts = int(length_B.sum()), len(length_B)
    pairs = int((length_B.double() ** 2).sum())
    whole = 2 * tokens * (4 * hidden**2 + 2 * hidden * inner) + 4 * pairs * hidden
    last = 4 * tokens * hidden**2 + 2 * texts * (2 * hidden**2 + 2 * hidden * inner)
    return 3 * ((layers - 1) * whole + last + 4 * tokens * hidden)


def ceiling() -> float:
    """Operations a second of a large product."""
    one, other = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        one @ other
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(30):
        one @ other
    torch.cuda.synchronize()
    return 30 * 2 * SIDE**3 / (time.perf_counter() - start)


def replayed(trained: Trained, passes: Packed, batch: JointBatch) -> Callable[[], None]:
    """A step that is recorded, and the optimiser's."""
    steps = GraphedSteps(passes, JointLoss(), lambda: None)

    def step() -> None:
        with trained.autocast():
            steps(batch, 1.0)
        nn.utils.clip_grad_norm_(trained.network.parameters(), 1.0)
        trained.optimizer.step()
        trained.schedule.step()

    return step


def compiled(setting: Setting, batch: JointBatch) -> Callable[[], None]:
    """The same with all layers but the last compiled, around their attention."""
    network = copy.deepcopy(setting.theirs.network)
    passes = build_passes(network, 8)
    assert isinstance(passes, Packed)
    encoder: Any = network.encoder
    for layer in encoder.encoder.layer[:-1]:
        layer.compile(dynamic=True)
    return replayed(Trained(network, bf16=True), passes, batch)


@contextmanager
def attention_as_it_is() -> Iterator[None]:
    """Attention is left out of what is compiled: torch knows too little of its kernels."""
    packed.row_attention = torch.compiler.disable(row_attention)
    try:
        yield
    finally:
        packed.row_attention = row_attention


def works(step: Callable[[], None], name: str) -> bool:
    """Whether a step can be taken at all; says why not."""
    try:
        step()
        torch.cuda.synchronize()
    except Exception as error:  # whatever torch.compile meets
        say(f"gpu: {name} does not work here: {(str(error).splitlines() or ['?'])[0][:200]}")
        return False
    return True


def functions(setting: Setting) -> dict[str, Callable[[], None]]:
    """A step of each by name, all of the same weights and batch."""
    eager = Trained(copy.deepcopy(setting.theirs.network), bf16=True)
    eager_passes = build_passes(eager.network, 8)
    assert isinstance(setting.passes, Packed)

    def as_it_comes() -> None:
        our_backward(eager, eager_passes, setting.batch)
        eager.move()

    def reference() -> None:
        reference_backward(setting.theirs, setting.batch)
        setting.theirs.move()

    return {
        "ours": replayed(setting.ours, setting.passes, setting.batch),
        "eager": as_it_comes,
        "reference": reference,
    }


def several(step: Callable[[], None], count: int) -> Callable[[], None]:
    """So many steps, and what they left to the GPU."""

    def steps() -> None:
        for _ in range(count):
            step()
        torch.cuda.synchronize()

    return steps


def speeds(case: Case, setting: Setting, options: Options, most: float) -> list[Row]:
    """Against the same as it comes, the reference's recipe, and the ceiling."""
    steps = functions(setting)
    config: Any = setting.ours.network.encoder.config
    if config.hidden_size >= WIDE:
        step = compiled(setting, setting.batch)
        if works(step, f"{case.name} compiled"):
            steps["compiled"] = step
    rounds = options.rounds or case.rounds
    reference = in_turn({"reference": several(steps.pop("reference"), 1)}, max(1, rounds // 2))
    seconds = in_turn({name: several(step, STEPS) for name, step in steps.items()}, rounds)
    took = {name: [each / STEPS for each in found] for name, found in seconds.items()}
    length_B = setting.batch.tokens.attention_mask_BT.sum(dim=1).cpu()
    needed = operations(
        length_B, Sizes(config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    )
    theirs = [quartiles(reference["reference"])[1]] * rounds
    return [
        compared(PART, case.name, took["ours"], took["eager"], note=EAGER),
        compared(PART, case.name, took["ours"], theirs, note=REFERENCE),
        share(case, took["ours"], needed, most, CEILING, "at least 0.45"),
        *(
            share(case, took[name], needed, most, COMPILED, "")
            for name in took
            if name == "compiled"
        ),
    ]


def share(
    case: Case, seconds: list[float], needed: int, most: float, note: str, wanted: str
) -> Row:
    """Of the ceiling, in TFLOP/s."""
    reached = [needed / each / 1e12 for each in seconds]
    return compared(
        PART,
        case.name,
        reached,
        [most / 1e12] * len(reached),
        note=note,
        unit="T/s",
        wanted=wanted if case.size == "roberta_base" else "",
        inverse=True,
    )


def memory(case: Case, setting: Setting, options: Options) -> Row:
    """Peak of a step's own tensors, as it comes, with noise in chunks of B, against K = 1."""
    ours, passes = setting.ours, setting.passes

    def peak(batch: JointBatch, chunk: int | None) -> float:
        for _ in range(2):
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            our_backward(ours, passes, batch, chunk)
            ours.move()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    one = build_batch(replace(case, per_text=1), ours.network, options, "cuda")
    chunks, at_once = peak(setting.batch, case.texts), peak(setting.batch, None)
    return memory_row(PART, case, chunks, peak(one, None), at_once)


def measure(options: Options) -> Iterator[Row]:
    """The rows of every case that is asked for; none where there is no GPU."""
    if not torch.cuda.is_available():
        say("gpu: there is none here")
        return
    most = ceiling()
    say(f"gpu: {torch.cuda.get_device_name()}, {most / 1e12:.0f} TFLOP/s")
    for case in SHORT if options.short else CASES:
        if not options.takes(case.name):
            continue
        say(f"gpu: {case.name}")
        setting = build(case, options, "cuda")
        if case.per_text > 1:
            yield memory(case, setting, options)
        with attention_as_it_is():
            yield from speeds(case, setting, options, most)
        del setting
        torch.cuda.empty_cache()
