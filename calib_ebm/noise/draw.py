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

from calib_ebm.noise.drafts import NEVER, Drafts, worth_on
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
    last_B: Tensor
    state_B: Tensor
    """Of the grammar, behind the last symbol."""
    alive_B: Tensor
    """False for a finished row that has not left yet: it is read on, and nothing is written."""
    uniform_BT: Tensor

    def keep(self, order_B: Tensor) -> None:
        """Go on with these rows only, in this order."""
        for name, tensor in vars(self).items():
            setattr(self, name, tensor[order_B])


@torch.inference_mode()
def draw_symbols(
    lm: NoiseLm,
    prefixes: Sequence[Sequence[int]],
    uniform_BT: np.ndarray,
    sampling: Sampling,
    grammar: Grammar | GapGrammar,
    worth: float | None = None,
) -> list[list[int]]:
    """One noise text for each prefix, as symbols; END is the last unless it was cut.

    Args:
        lm: an autoregressive noise model, in eval mode.
        prefixes: what each text is drawn around, without START.
        uniform_BT: a number in [0, 1) for each symbol that may be drawn, T = `grammar.max_symbols`.
        sampling: temperature and top-k.
        grammar: what may follow what, on the model's device, `given` these prefixes.
        worth: see `Drafts`; it moves the time that drawing takes, and nothing else.
    """
    assert uniform_BT.shape == (len(prefixes), grammar.max_symbols)
    symbols, longest = lm.vocabulary.symbols, grammar.max_symbols
    reader = lm.reader()
    logits_NV = reader.begin([[*prefix, symbols.start] for prefix in prefixes])
    writing = _begin(lm.device, uniform_BT, grammar)
    worth = worth_on(lm.device) if worth is None else worth
    drafts = None
    if reader.takes_drafts and worth != NEVER:
        drafts = Drafts(grammar.along(prefixes), symbols.mask, lm.device, worth)
    none_B = torch.zeros_like(writing.row_B)
    none_BD = none_B.new_zeros(len(none_B), 0)
    draft_BD, count_B = none_BD, none_B
    written_BT = torch.full(uniform_BT.shape, -1, device=lm.device)
    while True:
        symbol_BQ = _draw_along(logits_NV, draft_BD, count_B, writing, sampling, grammar)
        took_B = _taken(symbol_BQ, draft_BD)
        for at, symbol_B in enumerate(symbol_BQ.unbind(dim=1)):
            wrote_B = writing.alive_B & (at < took_B)
            _write(written_BT, writing, symbol_B, wrote_B, grammar)
            if drafts is not None:
                drafts.follow(symbol_B, wrote_B)
        writing.alive_B = (
            writing.alive_B & (writing.last_B != symbols.end) & (writing.place_B < longest)
        )
        left = int(writing.alive_B.sum())
        if left == 0:
            return [[s for s in row if s >= 0] for row in written_BT.tolist()]
        if drafts is not None and draft_BD.shape[1]:
            drafts.learn(count_B, took_B - 1)
            reader.forget(count_B + 1 - took_B)
        if left < len(writing.row_B) and left <= reader.compact_at * len(writing.row_B):
            order_B = closed_up(writing.alive_B)
            for part in (writing, reader, drafts):
                if part is not None:
                    part.keep(order_B)
        draft_BD, count_B = none_BD[: len(writing.row_B)], none_B[: len(writing.row_B)]
        if drafts is not None:
            draft_BD, count_B = drafts.next(longest - 1 - writing.place_B)
        ids_BQ = torch.cat([writing.last_B[:, None], draft_BD.clamp(min=0)], dim=1)
        logits_NV = reader.read(ids_BQ, count_B + 1 if draft_BD.shape[1] else None)


def _begin(device: torch.device, uniform_BT: np.ndarray, grammar: Grammar | GapGrammar) -> _Writing:
    row_B = torch.arange(len(uniform_BT), device=device)
    return _Writing(
        row_B=row_B,
        place_B=torch.zeros_like(row_B),
        last_B=torch.zeros_like(row_B),
        state_B=grammar.begin(len(row_B)),
        alive_B=torch.ones_like(row_B, dtype=torch.bool),
        uniform_BT=torch.from_numpy(uniform_BT).to(device),
    )


def _draw_along(
    logits_NV: Tensor,
    draft_BD: Tensor,
    count_B: Tensor,
    writing: _Writing,
    sampling: Sampling,
    grammar: Grammar | GapGrammar,
) -> Tensor:
    """The next symbols of each row, (B, 1 + D), if all that was guessed before them were right.

    Each symbol takes the number of its own place, so that it is the one that would be drawn there
    without guesses. -1 where a row has no guess.
    """
    if draft_BD.shape[1] == 0:
        state_B = grammar.at(writing.state_B, writing.place_B)
        place_B1 = writing.place_B[:, None].clamp(max=grammar.max_symbols - 1)
        uniform_B = writing.uniform_BT.gather(1, place_B1)[:, 0]
        return draw_from(top_of(grammar.ban(logits_NV, state_B), sampling), uniform_B)[:, None]
    step_Q = torch.arange(draft_BD.shape[1] + 1, device=draft_BD.device)
    real_BQ = step_Q <= count_B[:, None]
    state_B, states = writing.state_B, []
    for at in range(len(step_Q)):
        state_B = grammar.at(state_B, writing.place_B + at)
        states.append(state_B)
        if at < draft_BD.shape[1]:
            state_B = grammar.after(state_B, draft_BD[:, at])
    place_BQ = (writing.place_B[:, None] + step_Q).clamp(max=grammar.max_symbols - 1)
    uniform_N = writing.uniform_BT.gather(1, place_BQ)[real_BQ]
    top = top_of(grammar.ban(logits_NV, torch.stack(states, dim=1)[real_BQ]), sampling)
    nothing_BQ = torch.full_like(place_BQ, -1)
    return nothing_BQ.masked_scatter(real_BQ, draw_from(top, uniform_N))


def _taken(symbol_BQ: Tensor, draft_BD: Tensor) -> Tensor:
    """How many of the symbols of each row stand: up to the first that was guessed wrong.

    >>> drafts = torch.tensor([[5, 6], [5, 9], [-1, -1]])
    >>> _taken(torch.tensor([[5, 6, 7], [5, 6, 7], [5, -1, -1]]), drafts)
    tensor([3, 2, 1])
    """
    right_BD = symbol_BQ[:, :-1] == draft_BD
    return 1 + right_BD.long().cumprod(dim=1).sum(dim=1)


def _write(
    written_BT: Tensor,
    writing: _Writing,
    symbol_B: Tensor,
    wrote_B: Tensor,
    grammar: Grammar | GapGrammar,
) -> None:
    """Write one symbol each, where `wrote_B`."""
    written_BT[writing.row_B[wrote_B], writing.place_B[wrote_B]] = symbol_B[wrote_B]
    state_B = grammar.at(writing.state_B, writing.place_B)
    state_B = grammar.after(state_B, symbol_B)
    writing.state_B = torch.where(wrote_B, state_B, writing.state_B)
    writing.last_B = torch.where(wrote_B, symbol_B, writing.last_B)
    writing.place_B = writing.place_B + wrote_B


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
    banned_NV = grammar.banned_SV[grammar.states(target_BT)[inside_BT]]
    log_probs_NV = filtered_log_probs(lm.logits(hidden_NH), sampling, banned_NV)
    picked_N = log_probs_NV.gather(-1, target_BT[inside_BT][:, None])[:, 0].double()
    total_BT = torch.zeros(target_BT.shape, dtype=torch.double, device=lm.device)
    return total_BT.masked_scatter(inside_BT, picked_N).sum(dim=1)
