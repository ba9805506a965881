"""Encoded texts to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from calib_ebm.shapes import Encoded, JointBatch, TokenBatch
from calib_ebm.tokens.tokenizer import TextTokenizer


def pad_batch(tokenizer: TextTokenizer, texts: Sequence[Encoded]) -> TokenBatch:
    """Model input of B texts, padded on the right to the longest of them."""
    rows = [tokenizer.build(text) for text in texts]
    length_B = torch.tensor([len(ids) for ids, _ in rows])
    is_real_BT = torch.arange(int(length_B.max())) < length_B[:, None]
    # All at once, for a tensor for each text costs more than its tokens.
    input_ids_BT = torch.full(is_real_BT.shape, tokenizer.pad_id)
    input_ids_BT[is_real_BT] = torch.tensor([token for ids, _ in rows for token in ids])
    types_BT = None
    if tokenizer.has_types:
        types_BT = torch.zeros(is_real_BT.shape, dtype=torch.long)
        types_BT[is_real_BT] = torch.tensor([kind for _, types in rows for kind in types])
    return TokenBatch(input_ids_BT, is_real_BT.long(), types_BT, length_B.numpy())


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
