"""GPT-2 read in place, against transformers' own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from calib_ebm.noise import gpt2
from calib_ebm.noise.gpt2 import Gpt2Reader, can_read

ROWS = [[1, 2, 3, 4], [5], [6, 7], [8, 9, 10, 11, 12], [13, 13, 13]]


def model_of(**config: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**{**shape, **ends, **config})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def theirs(model: GPT2LMHeadModel, row: list[int]) -> Tensor:
    """Logits of what follows each symbol of a row read alone, without a cache, (T, V)."""
    return model(input_ids=torch.tensor([row])).logits[0]


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("growth", [1, 32])
def test_rows_that_go_on_and_leave_are_read_as_alone(
    monkeypatch: pytest.MonkeyPatch, growth: int
) -> None:
    monkeypatch.setattr(gpt2, "GROWTH", growth)
    model, rows = model_of(), [list(row) for row in ROWS]
    with torch.inference_mode():
        reader = Gpt2Reader(model)
        logits = reader.begin(rows)
        for turn in range(6):
            close(logits, torch.stack([theirs(model, row)[-1] for row in rows]))
            if turn in (1, 3):
                order = torch.tensor([0, 4, 2, 3] if turn == 1 else [3, 1])
                reader.keep(order)
                rows = [rows[at] for at in order.tolist()]
            symbols = torch.randint(0, 50, (len(rows), 1))
            rows = [[*row, int(symbol)] for row, symbol in zip(rows, symbols, strict=True)]
            logits = reader.read(symbols)
    assert len(logits) == 2, "five rows began, and two are left"


def test_several_symbols_a_row_are_read_at_once_and_taken_back() -> None:
    model, rows = model_of(), [list(row) for row in ROWS]
    drafts = [[20, 21, 22], [23], [24, 25], [26, 27, 28], [29]]
    kept = [1, 1, 0, 3, 0]
    with torch.inference_mode():
        reader = Gpt2Reader(model)
        reader.begin(rows)
        ids = torch.tensor([[*draft, 0, 0, 0][:3] for draft in drafts])
        logits = reader.read(ids, torch.tensor([len(draft) for draft in drafts]))
        expected = [theirs(model, row + draft)[len(row) :] for row, draft in zip(rows, drafts)]  # noqa: B905
        close(logits, torch.cat(expected))
        reader.forget(torch.tensor([len(d) - n for d, n in zip(drafts, kept, strict=True)]))
        rows = [row + draft[:n] for row, draft, n in zip(rows, drafts, kept, strict=True)]
        logits = reader.read(torch.full((5, 1), 30))
        close(logits, torch.stack([theirs(model, [*row, 30])[-1] for row in rows]))
        # The control: what was not taken back is seen.
        wrong = theirs(model, [*ROWS[0], *drafts[0], 30])[-1]
        assert (logits[0] - wrong).abs().max() > 1e-2


@pytest.mark.parametrize(
    "config",
    [
        {"activation_function": "relu"},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
    ],
    ids=str,
)
def test_what_computes_another_function_is_not_read_so(config: dict[str, Any]) -> None:
    model = model_of(**config)
    assert not can_read(model)
    with torch.inference_mode():  # the control: it would have been wrong
        ours = Gpt2Reader(model).begin([ROWS[3]])
        assert (ours[0] - theirs(model, ROWS[3])[-1]).abs().max() > 1e-3
    assert can_read(model_of())
    assert can_read(model_of(activation_function="gelu_pytorch_tanh"))
