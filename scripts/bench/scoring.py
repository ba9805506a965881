"""Scoring: `predict` against the text-classification pipeline of transformers; memory; estimators.

    pipeline    the same weights, tokenizer, texts and threads, texts of mixed lengths cut at 128
                tokens, in float32 and in bf16 (ours: precision=bf16-mixed; theirs: its weights);
                theirs is the pipeline at whichever of its batch sizes is fastest
    memory      peak of a process that scores ten times the rows (`stubbed.py`: all but the encoder)
    estimators  ours against torchmetrics' calibration error, over many predictions, seconds of the
                processor (`estimators.py`)

Before anything is timed, ours and the pipeline's probabilities are shown to be the same. That of
ten million rows: python scripts/bench/stubbed.py (its first lines say how).
"""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.lengths import LENGTHS
from bench.models import SIZES
from bench.rows import Options, Row, compared, in_turn, say
from calib_ebm.energy.encoder import hush, load_encoder
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.shapes import Example
from calib_ebm.tokens.tokenizer import (
    TextTokenizer,
    encode_examples,
    load_tokenizer,
    train_tokenizer,
)
from calib_ebm.windows import WINDOW, WindowScorer

PART = "scoring"
MAX_LENGTH = 128
BATCH_SIZES = (1, 4, 8, 32)
TEXTS = {"embedded": 2048, "minilm": 512, "roberta_base": 96}
COLUMNS = {"SST-2": 0, "CoLA": 3, "MRPC": 3, "RTE": 1}
PIPELINE = "theirs: the pipeline of transformers in the same precision, at its fastest batch size"
FLOOR = "theirs: the products of the encoder's linear layers alone; ratio: ours / theirs"
DEFAULT = "theirs: the pipeline of transformers as it comes, one text after another"
MEMORY = "peak memory; ours: ten times the rows, theirs: the rows; ratio: ours / theirs"
METRIC = "theirs: torchmetrics' MulticlassCalibrationError, seconds of the processor"
METRIC_MEMORY = "peak memory; theirs: torchmetrics'; ratio: theirs / ours"
HERE = Path(__file__).parent


def measure(options: Options) -> Iterator[Row]:
    """All comparisons of this part."""
    for size in SIZES:
        if options.short and size == "roberta_base":
            continue
        for case, texts in _texts(options, size).items():
            if options.takes(f"pipeline {size} {case}"):
                yield from _against_pipeline(size, case, texts, options)
    if options.takes("memory"):
        yield _memory(options)
    if options.takes("estimators"):
        yield from _estimators(options)


# -------------------------------------------------------------------------------- the pipeline


def _texts(options: Options, size: str) -> dict[str, list[str]]:
    """Texts by the name of their lengths: real ones where they are to be had, else random words."""
    count = TEXTS[size] // (4 if options.short else 1)
    draw = random.Random(0)  # noqa: S311  # no secret
    if options.glue is not None:
        found = []
        for task, column in COLUMNS.items():
            lines = (options.glue / task / "dev.tsv").read_text(encoding="utf-8").split("\n")[1:]
            cells = [line.split("\t") for line in lines if line]
            found += [row[column] for row in cells if len(row) > column]
        return {"glue dev": draw.sample(found, count)}
    mixed = [length - 2 for name in ("sst2", "mrpc", "rte") for length in LENGTHS[name]]
    return {"mixed": [" ".join(draw.choices(_words(), k=draw.choice(mixed))) for _ in range(count)]}


def _words() -> list[str]:
    return [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]


def _network(size: str, options: Options) -> tuple[EnergyNetwork, TextTokenizer]:
    if options.encoder is not None and size == "minilm":
        classifier: Any = load_encoder(str(options.encoder), ("a", "b"), {})
        hf = load_tokenizer(str(options.encoder))
    else:
        torch.manual_seed(0)
        classifier = SIZES[size]()
        # Each word is one piece.
        hf = train_tokenizer(_words() * 4, 600)
    network = EnergyNetwork(classifier, build_energy("hidden", classifier.config.hidden_size))
    return network.eval(), TextTokenizer(hf, MAX_LENGTH)


def _against_pipeline(size: str, case: str, texts: list[str], options: Options) -> list[Row]:
    hush()
    network, tokenizer = _network(size, options)
    sizes = BATCH_SIZES[1:3] if options.short else BATCH_SIZES
    # Before ours is built: the encoder has transformers' own attention then.
    theirs = {
        "float32": _pipeline(network.classifier, tokenizer),
        "bf16": _pipeline(copy.deepcopy(network.classifier).to(torch.bfloat16), tokenizer),
    }
    what: dict[str, Callable[[], object]] = {
        f"{precision} {batch_size}": partial(pipe, texts, batch_size)
        for precision, pipe in theirs.items()
        for batch_size in sizes
    }
    told = {precision: pipe(texts[:32], 8) for precision, pipe in theirs.items()}
    examples = [Example("", text, None, -1) for text in texts]
    for precision, tolerance in (("float32", 1e-4), ("bf16", 5e-2)):
        scorer = WindowScorer(network, tokenizer, bf16=precision == "bf16")
        probs_BC = scorer.score(examples[:32]).logits_BC.double().softmax(dim=1).float()
        expected_BC = _probs(told[precision], network)
        torch.testing.assert_close(probs_BC, expected_BC, rtol=0, atol=tolerance)
        what[f"ours {precision}"] = partial(_windows, scorer, examples)
        what[f"products {precision}"] = _products(
            network, tokenizer, examples, scorer.tokens, precision
        )
    say(f"{size}, {case}: {len(texts)} texts")
    seconds = in_turn(what, options.rounds or (2 if options.short else 5))
    middle = {name: median(each) for name, each in seconds.items()}
    rows = []
    for precision in theirs:
        best = min((f"{precision} {each}" for each in sizes), key=middle.__getitem__)
        rows.append(
            compared(
                PART,
                f"pipeline {size} {case} ({best})",
                seconds[f"ours {precision}"],
                seconds[best],
                note=PIPELINE,
                wanted="at least 3",
                further={"texts": len(texts), **middle},
            )
        )
    for precision in theirs:
        rows.append(
            compared(
                PART,
                f"products {size} {case} ({precision})",
                seconds[f"ours {precision}"],
                seconds[f"products {precision}"],
                note=FLOOR,
                inverse=True,
            )
        )
    if 1 in sizes:
        rows.append(
            compared(
                PART,
                f"pipeline {size} {case}",
                seconds["ours float32"],
                seconds["float32 1"],
                note=DEFAULT,
                further={"texts": len(texts)},
            )
        )
    return rows


def _pipeline(model: Any, tokenizer: TextTokenizer) -> Callable[[list[str], int], Any]:
    """Texts and a batch size to what the pipeline says of each text."""
    from transformers import pipeline

    pipe = pipeline(
        "text-classification", model=model, tokenizer=tokenizer.hf, device="cpu", top_k=None
    )
    return lambda texts, batch_size: pipe(
        texts, batch_size=batch_size, truncation=True, max_length=MAX_LENGTH
    )


def _probs(told: Any, network: EnergyNetwork) -> Tensor:
    """What the pipeline said, as B by C."""
    names = network.classifier.config.id2label  # type: ignore[union-attr]
    each = [{one["label"]: one["score"] for one in text} for text in told]
    return torch.tensor([[text[names[at]] for at in (0, 1)] for text in each])


def _products(
    network: EnergyNetwork,
    tokenizer: TextTokenizer,
    examples: list[Example],
    tokens: int,
    precision: str,
) -> Callable[[], None]:
    """The products of the encoder's linear layers, for as many tokens as the texts have."""
    encoded, _ = encode_examples(tokenizer, examples)
    total = sum(len(text.ids_a) + tokenizer.single.size for text in encoded)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weights = [
        module.weight.detach().to(dtype)
        for name, module in network.classifier.base_model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name  # it reads one token a text
    ]
    inputs = {w.shape[1]: torch.randn(tokens, w.shape[1]).to(dtype) for w in weights}

    @torch.inference_mode()
    def work() -> None:
        for at in range(0, total, tokens):
            for weight in weights:
                torch.nn.functional.linear(inputs[weight.shape[1]][: total - at], weight)

    return work


def _windows(scorer: WindowScorer, examples: list[Example]) -> None:
    for at in range(0, len(examples), WINDOW):
        scorer.score(examples[at : at + WINDOW])


# ------------------------------------------------------------------------- memory and estimators


def _child(script: str, *words: str) -> dict[str, Any]:
    """What a script of this folder prints as JSON in its last line."""
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / script), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = done.stdout.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def _memory(options: Options) -> Row:
    few = 20_000 if options.short else 200_000
    peaks, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        for rows in (few, 10 * few):
            folder = Path(name, str(rows))
            folder.mkdir()
            say(f"memory: {rows:,} rows")
            _child("stubbed.py", "make", str(folder), str(rows))
            words = (
                f"run={folder}/model",
                f"input={folder}/new.csv",
                f"output={folder}/out.parquet",
            )
            found = _child("stubbed.py", "predict", *words)
            peaks.append(found["peak_mb"])
            seconds = found["seconds"]
    return compared(
        PART,
        f"memory {10 * few:,} rows",
        [peaks[1]],
        [peaks[0]],
        note=MEMORY,
        unit="MB",
        wanted="at most 1.1",
        inverse=True,
        further={"rows_a_second": 10 * few / seconds},
    )


def _estimators(options: Options) -> list[Row]:
    count = 200_000 if options.short else 10_000_000
    theirs = _child("estimators.py", "torchmetrics", str(count))
    rows = []
    for name in ("TopLabelECE", "ClasswiseECE", "PooledECE", "SmoothECE", "NLL", "Brier"):
        say(f"estimators: {name} of {count:,}")
        ours = _child("estimators.py", name, str(count))
        further = {"predictions": count, **ours["values"]}
        for note, what, unit in ((METRIC, "seconds", "s"), (METRIC_MEMORY, "peak_mb", "MB")):
            rows.append(
                compared(
                    PART,
                    f"estimators {name}",
                    [ours[what]],
                    [theirs[what]],
                    note=note,
                    unit=unit,
                    further=further,
                )
            )
    return sorted(rows, key=lambda row: row.note)
