"""Batches are what transformers pads, and data and noise stand in them as promised."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calib_ebm.shapes import Encoded, Example, TokenBatch
from calib_ebm.tokens.collate import joint_batch, pad_batch
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples

TEXTS = ["the cat sat on the mat", "good", "it was bad and it was good film"]
PAIRS = ["a mat", "the cat sat on it", "film"]


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_padding_is_that_of_transformers(hf: Any, pairs: list[str] | None) -> None:
    ours = TextTokenizer(hf, 16)
    both = zip(TEXTS, pairs or [None] * 3, strict=True)
    encoded, _ = encode_examples(ours, [Example("x", text, pair, 0) for text, pair in both])
    batch = pad_batch(ours, encoded)
    theirs = hf(TEXTS, pairs, padding=True, truncation=True, max_length=16, return_tensors="pt")
    assert torch.equal(batch.input_ids_BT, theirs["input_ids"])
    assert torch.equal(batch.attention_mask_BT, theirs["attention_mask"])
    if "token_type_ids" in theirs:
        assert batch.token_type_ids_BT is not None
        mask_BT = batch.attention_mask_BT  # the type of padding is nobody's business
        assert torch.equal(batch.token_type_ids_BT * mask_BT, theirs["token_type_ids"] * mask_BT)
    else:
        assert batch.token_type_ids_BT is None
    assert {t.dtype for t in batch if isinstance(t, torch.Tensor)} == {torch.int64}
    assert batch.length_B is not None  # what the host knows is what the mask says
    assert batch.length_B.tolist() == theirs["attention_mask"].sum(dim=1).tolist()


def rows_of(batch: TokenBatch) -> list[list[int]]:
    """Token ids without padding."""
    both = zip(batch.input_ids_BT.tolist(), batch.attention_mask_BT.sum(1).tolist(), strict=True)
    return [ids[:length] for ids, length in both]


def test_data_come_first_and_then_the_noise_text_by_text(bert: Any) -> None:
    ours = TextTokenizer(bert, 16)
    data = [Encoded([5 + b], None, b % 2) for b in range(3)]
    noise = [[Encoded([8 + s] * (1 + k), None, 10 * s + k) for k in range(2)] for s in range(2)]
    batch = joint_batch(ours, data, [40, 7, 12], noise)
    assert batch.label_B.tolist() == [0, 1, 0]
    assert batch.index_B.tolist() == [40, 7, 12]
    assert batch.noise_label_SK is not None
    assert batch.noise_label_SK.tolist() == [[0, 1], [10, 11]]
    rows = rows_of(batch.tokens)
    assert rows[:3] == [ours.build(text)[0] for text in data]
    assert len(rows) == 3 + 2 * 2
    for s in range(2):
        for k in range(2):
            assert rows[3 + 2 * s + k] == ours.build(noise[s][k])[0]


def test_a_batch_without_noise_says_so(bert: Any) -> None:
    batch = joint_batch(TextTokenizer(bert, 16), [Encoded([5], None, 1)], [3])
    assert batch.noise_label_SK is None
    assert rows_of(batch.tokens) == [[bert.cls_token_id, 5, bert.sep_token_id]]


def test_noise_that_does_not_go_round_is_ours_to_see(bert: Any) -> None:
    text = Encoded([5], None, 1)
    data, noise = [text] * 2, [[text, text], [text]]
    with pytest.raises(AssertionError, match="K noise texts"):
        joint_batch(TextTokenizer(bert, 16), data, [0, 1], noise)
