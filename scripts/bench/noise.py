"""Drawing noise: ours against `generate` of transformers, same model, filter, grammar and batch.

Random weights, with END as probable as makes texts as long as the task's on average; prefixes are
texts of the task's lengths of which 40% is masked. Both draw from the same distribution, which
tests/noise/test_generate.py shows.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

from bench.generated import generate_symbols
from bench.lengths import lengths_of
from bench.rows import Options, Row, compared, in_turn, say
from calib_ebm.noise.draw import draw_symbols
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm, SmallOptions, build_small
from calib_ebm.noise.masking import collapse, draw_mask
from calib_ebm.noise.padding import length_batches
from calib_ebm.shapes import Encoded

SAMPLING = Sampling(top_k=20)
LONGEST = 128
MASK_RATE = 0.4
CONSTANT = 32.0
"""Large beside what else stands there in the hidden states, which is about 1."""
NOTE = "samples of noise from the same batch; theirs: generate of transformers, sampling"


class _Size(NamedTuple):
    pieces: int
    model: SmallOptions


SIZES = {
    "small": _Size(11_500, SmallOptions(3, 192, 4)),
    "gpt2": _Size(50_257, SmallOptions(12, 768, 12)),
}
"""The default small noise model over the pieces of MRPC or SST-2, and GPT-2."""


class _Case(NamedTuple):
    size: str
    task: str
    texts: int
    batch: int
    rounds: int


CASES = (
    _Case("small", "sst2", 512, 256, 5),
    _Case("small", "mrpc", 512, 256, 5),
    _Case("small", "rte", 512, 256, 5),
    _Case("gpt2", "sst2", 32, 16, 3),
    _Case("gpt2", "mrpc", 16, 16, 3),
)
SHORT = (_Case("small", "sst2", 32, 16, 1),)


def measure(options: Options) -> Iterator[Row]:
    """Rows of each size of model and each task's lengths."""
    logging.set_verbosity_error()
    for case in SHORT if options.short else CASES:
        name = f"{case.size} {case.task} batch {case.batch}"
        if options.takes(name):
            say(f"noise: {name}")
            yield _measured(name, case, options)


def _measured(name: str, case: _Case, options: Options) -> Row:
    lengths = lengths_of(case.task, options)
    pairs = case.task != "sst2"
    lm = _model(SIZES[case.size])
    grammar = Grammar(lm.vocabulary, pairs=pairs, labelled=False, max_symbols=LONGEST)
    prefixes = _prefixes(lm, lengths, case.texts, pairs)
    _end_after(lm, sum(lengths) / len(lengths))
    counts: dict[str, list[int]] = {"ours": [], "theirs": []}
    rng = np.random.default_rng(0)

    def ours() -> None:
        total = 0
        for batch in length_batches([len(prefix) for prefix in prefixes], case.batch):
            uniform_BT = rng.random((len(batch), LONGEST))
            chosen = [prefixes[at] for at in batch]
            total += sum(map(len, draw_symbols(lm, chosen, uniform_BT, SAMPLING, grammar)))
        counts["ours"].append(total)

    def theirs() -> None:
        written = generate_symbols(lm, prefixes, SAMPLING, grammar, case.batch)
        counts["theirs"].append(sum(map(len, written)))

    what: dict[str, Callable[[], object]] = {"ours": ours, "theirs": theirs}
    rounds = options.rounds or case.rounds
    seconds = in_turn(what, rounds, warm_up=0 if case.size == "gpt2" else 1)
    # The texts are random, so that one side may have had more to write: what counts is the rate.
    rate = {
        who: [n / s for s, n in zip(seconds[who], counts[who][-rounds:], strict=True)]
        for who in what
    }
    further = {
        f"{who} samples a second": case.texts / statistics.median(seconds[who]) for who in what
    }
    return compared(
        "noise",
        name,
        rate["ours"],
        rate["theirs"],
        note=NOTE,
        unit="tokens/s",
        wanted="at least 3",
        inverse=True,
        further=further,
    )


def _model(size: _Size) -> NoiseLm:
    """A noise model with random weights that knows so many pieces."""
    torch.manual_seed(0)
    texts = [Encoded(list(range(size.pieces)), None, 0)]
    tokenizer: Any = SimpleNamespace(special_ids=frozenset(), hf=None)
    return build_small(texts, tokenizer, 2, 2 * LONGEST + 1, size.model, masked=False)


def _prefixes(lm: NoiseLm, lengths: Sequence[int], count: int, pairs: bool) -> list[list[int]]:
    """Masked texts of random pieces, two special tokens shorter than what a classifier reads."""
    draw, rng = random.Random(0), np.random.default_rng(0)  # noqa: S311  # no secret
    symbols, pieces = lm.vocabulary.symbols, len(lm.vocabulary.content_of)
    prefixes = []
    for _ in range(count):
        ids = [draw.randrange(pieces) for _ in range(max(2, draw.choice(lengths) - 2 - pairs))]
        halves = [ids[: len(ids) // 2], ids[len(ids) // 2 :]] if pairs else [ids]
        seen = [
            collapse(half, draw_mask(len(half), MASK_RATE, rng), symbols.mask) for half in halves
        ]
        prefixes.append([*seen[0], symbols.pair, *seen[1]] if pairs else seen[0])
    return prefixes


@torch.inference_mode()
def _end_after(lm: NoiseLm, symbols: float) -> None:
    """Make END as probable as makes texts of about so many symbols.

    The last hidden states get a constant along one direction, which END alone looks along.
    """
    head_VH, norm = lm.model.lm_head.weight, lm.model.transformer.ln_f
    ids = torch.randint(0, len(lm.vocabulary.content_of), (64, 16))
    hidden_NH = lm.hidden(ids)[:, -1]
    top_NS = lm.logits(hidden_NH).topk(SAMPLING.top_k).values
    wanted = float(top_NS.logsumexp(dim=1).mean()) - math.log(max(1.0, symbols - 1))
    norm.bias[0] += CONSTANT
    end = lm.vocabulary.symbols.end
    head_VH[:, 0] = 0.0
    head_VH[end] = 0.0
    head_VH[end, 0] = wanted / CONSTANT
