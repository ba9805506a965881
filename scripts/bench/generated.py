"""Noise as transformers' `generate` draws it: same model, filter and grammar, padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm


class _Banned(LogitsProcessor):
    """What may not follow has no probability, as `calib_ebm.noise.grammar` has it."""

    def __init__(self, grammar: Grammar, read: int) -> None:
        self.grammar, self.read = grammar, read
        self.state_B: Tensor

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        written = input_ids.shape[1] - self.read
        if written == 0:
            self.state_B = self.grammar.begin(len(input_ids))
        else:
            self.state_B = self.grammar.after(self.state_B, input_ids[:, -1])
        self.state_B = self.grammar.at(self.state_B, written)
        return scores.masked_fill(self.grammar.banned_SV[self.state_B], -torch.inf)


def generate_symbols(
    lm: NoiseLm,
    prefixes: Sequence[Sequence[int]],
    sampling: Sampling,
    grammar: Grammar,
    batch_size: int,
) -> list[list[int]]:
    """One text for each prefix, as `draw_symbols` writes them, in batches of the given order."""
    symbols, written = lm.vocabulary.symbols, []
    for start in range(0, len(prefixes), batch_size):
        rows = [[*prefix, symbols.start] for prefix in prefixes[start : start + batch_size]]
        longest = max(map(len, rows))
        padding = [longest - len(row) for row in rows]
        out = lm.model.generate(
            input_ids=torch.tensor(
                [[symbols.pad] * n + row for n, row in zip(padding, rows, strict=True)]
            ),
            attention_mask=torch.tensor([[0] * n + [1] * (longest - n) for n in padding]),
            do_sample=True,
            top_k=sampling.top_k,
            temperature=sampling.temperature,
            max_new_tokens=grammar.max_symbols,
            eos_token_id=symbols.end,
            pad_token_id=symbols.pad,
            logits_processor=LogitsProcessorList([_Banned(grammar, longest)]),
        )
        # Behind END stands padding, which is never drawn.
        written += [[s for s in row if s != symbols.pad] for row in out[:, longest:].tolist()]
    return written
