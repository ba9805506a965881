"""Texts for the benchmark: random tokens, of lengths as real tasks have them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.rows import Options
from calib_ebm.shapes import JointBatch, TokenBatch

MAX_LENGTH = 128
"""Tokens to which the reference pads and at which all cut."""

LENGTHS: dict[str, list[int]] = {
    name: [int(word) for word in line.split()]
    for name, line in {
        "embedded": "6 6 6 6 7 7 7 7 8 11 12 12 13 14 17 18 18 19 19 20",
        "sst2": "3 4 4 4 5 5 5 5 6 6 6 7 7 7 8 8 9 9 10 10 11 11 12 12 13 14 15 15 16 17 18 20 21 "
        "22 24 26 29 32 36 44",
        "mrpc": "27 31 33 35 37 38 39 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 59 "
        "60 61 62 63 64 65 66 68 69 71 73 76 81",
        "rte": "22 27 30 32 34 36 37 39 40 42 43 45 46 47 48 49 51 52 53 55 56 58 60 61 63 65 68 "
        "70 75 81 89 97 108 116 123 128 128 128 128 128",
    }.items()
}
"""Quantiles at (i + 1/2) / n of the tokens of training texts, special tokens included, cut at
`MAX_LENGTH`: BERT's uncased word pieces, and the embedded task's own."""

COLUMNS = {"sst2": ("SST-2", (0,)), "mrpc": ("MRPC", (3, 4)), "rte": ("RTE", (1, 2))}
"""Folder of the GLUE download, and where the texts stand in a row."""


def lengths_of(task: str, options: Options) -> list[int]:
    """Tokens of a task's training texts: counted if there are texts and a tokenizer, else stored.

    Args:
        task: a key of `LENGTHS`.
        options: both `glue` and `encoder` must be given for lengths to be counted.
    """
    if options.glue is None or options.encoder is None or task not in COLUMNS:
        return list(LENGTHS[task])
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(options.encoder, local_files_only=True)
    folder, columns = COLUMNS[task]
    texts = _texts(options.glue / folder / "train.tsv", columns)
    random.Random(0).shuffle(texts)  # noqa: S311  # no secret
    return [
        len(tokenizer(*text, truncation=True, max_length=MAX_LENGTH)["input_ids"])
        for text in texts[:4000]
    ]


def _texts(path: Path, columns: Sequence[int]) -> list[tuple[str, ...]]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")[1:]
    rows = [line.split("\t") for line in lines if line]
    return [tuple(row[column] for column in columns) for row in rows]


def joint_batch_of(
    lengths: Sequence[int], texts: int, per_text: int, vocabulary: int, pad_id: int, seed: int = 0
) -> JointBatch:
    """B texts drawn from the lengths, with K noise texts each, of their text's length, about.

    What a noise model writes around a text is a little shorter or longer: here by up to a fifth.
    """
    draw = random.Random(seed)  # noqa: S311  # no secret
    data = [draw.choice(lengths) for _ in range(texts)]
    noise = [
        min(MAX_LENGTH, max(3, round(length * draw.uniform(0.8, 1.2))))
        for length in data
        for _ in range(per_text)
    ]
    length_B = torch.tensor([*data, *noise])
    mask_BT = (torch.arange(int(length_B.max())) < length_B[:, None]).long()
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(5, vocabulary, mask_BT.shape, generator=generator)
    return JointBatch(
        TokenBatch(torch.where(mask_BT.bool(), ids_BT, pad_id), mask_BT, None, length_B.numpy()),
        torch.randint(2, (texts,), generator=generator),
        torch.arange(texts),
        torch.full((texts, per_text), -1),
    )


def padded_to(tokens: TokenBatch, rows: slice, length: int) -> TokenBatch:
    """Some rows, padded to a length whatever theirs is."""
    missing = length - tokens.input_ids_BT.shape[1]
    pad = int(tokens.input_ids_BT[tokens.attention_mask_BT == 0].flatten()[:1].sum())
    grow = torch.nn.functional.pad
    return TokenBatch(
        grow(tokens.input_ids_BT[rows], (0, missing), value=pad),
        grow(tokens.attention_mask_BT[rows], (0, missing)),
        None,
    )
