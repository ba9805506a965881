"""Drawing noise texts, and their exact log-probability.

Each sample has its own random numbers, from (seed, number of the sample, attempt): what is drawn
does not depend on the batch it is drawn in, nor on which process draws it after which interruption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from calib_ebm.noise.filters import Sampling, draw_from, filtered_log_probs, filtered_top
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm

COMPACT_AT = 0.875
"""Finished rows leave the batch when no more than this share of it is still being written."""


@dataclass
class _Batch:
    """Rows that are still being written: tensors keep in step with `rows`."""

    rows: Tensor
    state_B: Tensor
    uniform_BT: Tensor
    mask_BT: Tensor | None
    length_B: Tensor
    alive_B: Tensor
    cache: object = None
    input_ids_BT: Tensor = field(default_factory=lambda: torch.empty(0))

    def keep(self) -> None:
        """Drop the finished rows, in the key-value cache too."""
        index = self.alive_B.nonzero()[:, 0]
        self.rows, self.state_B = self.rows[index], self.state_B[index]
        self.uniform_BT, self.length_B = self.uniform_BT[index], self.length_B[index]
        self.input_ids_BT, self.alive_B = self.input_ids_BT[index], self.alive_B[index]
        if self.mask_BT is not None:
            self.mask_BT = self.mask_BT[index]
        self.cache.batch_select_indices(index)  # type: ignore[attr-defined]  # a transformers cache


@torch.inference_mode()
def draw_symbols(
    lm: NoiseLm,
    prefixes: Sequence[Sequence[int]],
    uniform_BT: np.ndarray,
    sampling: Sampling,
    grammar: Grammar,
) -> list[list[int]]:
    """One noise text for each prefix, as symbols; END is the last unless it was cut.

    Args:
        lm: an autoregressive noise model, in eval mode.
        prefixes: what each text is drawn around, without START.
        uniform_BT: a number in [0, 1) for each symbol that may be drawn, T = `grammar.max_symbols`.
        sampling: temperature and top-k.
        grammar: what may follow what, on the model's device.
    """
    assert uniform_BT.shape == (len(prefixes), grammar.max_symbols)
    symbols = lm.vocabulary.symbols
    batch = _begin(lm, [[*prefix, symbols.start] for prefix in prefixes], uniform_BT, grammar)
    written_BT = torch.full((len(prefixes), grammar.max_symbols), -1, device=lm.device)
    for place in range(grammar.max_symbols):
        logits_BV = _read(lm, batch)
        batch.state_B = grammar.at(batch.state_B, place)
        top = filtered_top(logits_BV, sampling, grammar.banned_SV[batch.state_B])
        symbol_B = draw_from(top, batch.uniform_BT[:, place])
        # A finished row that has not left yet is read on, and what it would write is dropped.
        written_BT[batch.rows[batch.alive_B], place] = symbol_B[batch.alive_B]
        batch.state_B = grammar.after(batch.state_B, symbol_B)
        batch.alive_B = batch.alive_B & (symbol_B != symbols.end)
        batch.input_ids_BT = symbol_B[:, None]
        left = int(batch.alive_B.sum())
        if left == 0:
            break
        if left <= COMPACT_AT * len(batch.alive_B):
            batch.keep()
    return [[s for s in row if s >= 0] for row in written_BT.tolist()]


def _begin(lm: NoiseLm, rows: list[list[int]], uniform_BT: np.ndarray, grammar: Grammar) -> _Batch:
    """Prefixes padded on the left, so that all rows go on at the same place."""
    longest = max(map(len, rows))
    device = lm.device
    pad = lm.vocabulary.symbols.pad
    padded = [[pad] * (longest - len(row)) + row for row in rows]
    length_B = torch.tensor([len(row) for row in rows], device=device)
    ragged = min(map(len, rows)) < longest
    place_T = torch.arange(longest, device=device)
    mask_BT = (place_T >= longest - length_B[:, None]).long() if ragged else None
    return _Batch(
        rows=torch.arange(len(rows), device=device),
        state_B=grammar.begin(len(rows)),
        uniform_BT=torch.from_numpy(uniform_BT).to(device),
        mask_BT=mask_BT,
        length_B=length_B,
        alive_B=torch.ones(len(rows), dtype=torch.bool, device=device),
        input_ids_BT=torch.tensor(padded, device=device),
    )


def _read(lm: NoiseLm, batch: _Batch) -> Tensor:
    """Read the new symbols; padding is neither attended to nor counted in positions."""
    if batch.mask_BT is None:
        logits_BV, batch.cache = lm.step(batch.input_ids_BT, batch.cache, None, None)
        return logits_BV
    if batch.cache is None:
        position_BT = (batch.mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    else:
        position_BT = batch.length_B[:, None]
        batch.length_B = batch.length_B + 1
        batch.mask_BT = torch.cat([batch.mask_BT, torch.ones_like(batch.mask_BT[:, :1])], dim=1)
    logits_BV, batch.cache = lm.step(batch.input_ids_BT, batch.cache, batch.mask_BT, position_BT)
    return logits_BV


@torch.inference_mode()
def log_prob_symbols(
    lm: NoiseLm,
    prefixes: Sequence[Sequence[int]],
    written: Sequence[Sequence[int]],
    sampling: Sampling,
    grammar: Grammar,
) -> Tensor:
    """Exact log-probability, (B,), that `draw_symbols` writes these symbols for these prefixes.

    It counts the filter, and END, which only a text that was cut at `grammar.max_symbols` lacks.
    -inf for what is never drawn.
    """
    starts = [[*prefix, lm.vocabulary.symbols.start] for prefix in prefixes]
    rows = [[*start, *text] for start, text in zip(starts, written, strict=True)]
    input_ids_BT = pad_right(rows, lm.vocabulary.symbols.pad).to(lm.device)
    target_BT = pad_right(written, lm.vocabulary.symbols.pad).to(lm.device)
    hidden_BTH = lm.hidden(input_ids_BT)
    # The hidden state at START and behind it predicts the target.
    first_B1 = torch.tensor([[len(start) - 1] for start in starts], device=lm.device)
    place_BT = first_B1 + torch.arange(target_BT.shape[1], device=lm.device)
    inside_BT = pad_right([[1] * len(text) for text in written], 0).to(lm.device).bool()
    place_BT = place_BT.clamp(max=input_ids_BT.shape[1] - 1)
    index_BTH = place_BT[..., None].expand(-1, -1, hidden_BTH.shape[-1])
    hidden_NH = hidden_BTH.gather(1, index_BTH)[inside_BT]
    banned_NV = grammar.banned_SV[grammar.along(target_BT)[inside_BT]]
    log_probs_NV = filtered_log_probs(lm.logits(hidden_NH), sampling, banned_NV)
    picked_N = log_probs_NV.gather(-1, target_BT[inside_BT][:, None])[:, 0].double()
    total_BT = torch.zeros(target_BT.shape, dtype=torch.double, device=lm.device)
    return total_BT.masked_scatter(inside_BT, picked_N).sum(dim=1)


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows as one (B, T) tensor, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)


def length_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows in batches of similar length, longest first: too little memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    for start in range(0, len(order), size):
        yield order[start : start + size]
