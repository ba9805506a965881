"""Encoded texts to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from calib_ebm.shapes import Encoded, JointBatch, TokenBatch
from calib_ebm.tokens.tokenizer import TextTokenizer


def pad_batch(tokenizer: TextTokenizer, texts: Sequence[Encoded]) -> TokenBatch:
    """Model input of B texts, padded on the right to the longest of them."""
    rows = [tokenizer.build(text) for text in texts]
    longest = max(len(ids) for ids, _ in rows)
    input_ids_BT = torch.full((len(rows), longest), tokenizer.pad_id)
    mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    types_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, (ids, types) in enumerate(rows):
        input_ids_BT[row, : len(ids)] = torch.tensor(ids)
        mask_BT[row, : len(ids)] = 1
        types_BT[row, : len(ids)] = torch.tensor(types)
    return TokenBatch(input_ids_BT, mask_BT, types_BT if tokenizer.has_types else None)


def joint_batch(
    tokenizer: TextTokenizer,
    data: Sequence[Encoded],
    indices: Sequence[int],
    noise: Sequence[Sequence[Encoded]] = (),
) -> JointBatch:
    """B texts, and K noise texts for each of S of them, as one batch for one encoder pass."""
    assert len({len(of_one) for of_one in noise}) <= 1, "K noise texts for each of S texts"
    labels = [[text.label for text in of_one] for of_one in noise]
    return JointBatch(
        tokens=pad_batch(tokenizer, [*data, *(text for of_one in noise for text in of_one)]),
        label_B=torch.tensor([text.label for text in data]),
        index_B=torch.tensor(list(indices)),
        noise_label_SK=torch.tensor(labels) if labels else None,
    )
