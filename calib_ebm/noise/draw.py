"""Drawing noise texts, and their exact log-probability.

Each sample has its own random numbers, from (seed, number of the sample, attempt): what is drawn
does not depend on the batch it is drawn in, nor on which process draws it after which interruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calib_ebm.noise.filters import Sampling, draw_from, filtered_log_probs, top_of
from calib_ebm.noise.gaps import GapGrammar
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.padding import pad_right


@dataclass
class _Writing:
    """Rows that are still being written; all tensors are in step."""

    row_B: Tensor
    """Which of the texts."""
    place_B: Tensor
    """How many symbols stand."""
    state_B: Tensor
    """Of the grammar, behind the last symbol."""
    uniform_BT: Tensor

    def keep(self, order_B: Tensor) -> None:
        """Go on with these rows only, in this order."""
        self.row_B, self.place_B = self.row_B[order_B], self.place_B[order_B]
        self.state_B, self.uniform_BT = self.state_B[order_B], self.uniform_BT[order_B]


@torch.inference_mode()
def draw_symbols(
    lm: NoiseLm,
    prefixes: Sequence[Sequence[int]],
    uniform_BT: np.ndarray,
    sampling: Sampling,
    grammar: Grammar | GapGrammar,
) -> list[list[int]]:
    """One noise text for each prefix, as symbols; END is the last unless it was cut.

    Args:
        lm: an autoregressive noise model, in eval mode.
        prefixes: what each text is drawn around, without START.
        uniform_BT: a number in [0, 1) for each symbol that may be drawn, T = `grammar.max_symbols`.
        sampling: temperature and top-k.
        grammar: what may follow what, on the model's device, `given` these prefixes.
    """
    assert uniform_BT.shape == (len(prefixes), grammar.max_symbols)
    end, device = lm.vocabulary.symbols.end, lm.device
    reader = lm.reader()
    logits_BV = reader.begin([[*prefix, lm.vocabulary.symbols.start] for prefix in prefixes])
    row_B = torch.arange(len(prefixes), device=device)
    numbers = torch.from_numpy(uniform_BT).to(device)
    writing = _Writing(row_B, torch.zeros_like(row_B), grammar.begin(len(prefixes)), numbers)
    alive_B = torch.ones_like(row_B, dtype=torch.bool)
    written_BT = torch.full((len(prefixes), grammar.max_symbols), -1, device=device)
    for place in range(grammar.max_symbols):
        state_B = grammar.at(writing.state_B, place)
        top = top_of(grammar.ban(logits_BV, state_B), sampling)
        symbol_B = draw_from(top, writing.uniform_BT[:, place])
        # A finished row that has not left yet is read on, and what it would write is dropped.
        written_BT[writing.row_B[alive_B], place] = symbol_B[alive_B]
        writing.state_B = grammar.after(state_B, symbol_B)
        alive_B = alive_B & (symbol_B != end)
        left = int(alive_B.sum())
        if left == 0 or place + 1 == grammar.max_symbols:
            break
        if left < len(alive_B) and left <= reader.compact_at * len(alive_B):
            order_B = closed_up(alive_B)
            symbol_B, alive_B = symbol_B[order_B], alive_B[order_B]
            writing.keep(order_B)
            reader.keep(order_B)
        logits_BV = reader.read(symbol_B[:, None])
    return [[s for s in row if s >= 0] for row in written_BT.tolist()]


def closed_up(alive_B: Tensor) -> Tensor:
    """The rows that are alive, the last ones in the gaps of the others, so that few are moved.

    >>> closed_up(torch.tensor([True, False, True, False, True]))
    tensor([0, 4, 2])
    """
    size = int(alive_B.sum())
    order_B = torch.arange(size, device=alive_B.device)
    order_B[~alive_B[:size]] = size + alive_B[size:].nonzero()[:, 0]
    return order_B


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
