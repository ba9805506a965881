"""Writing into the gaps of a prefix: which symbol may follow where the visible ones stay.

The text is written from left to right along its prefix. A visible symbol is given, with probability
1. In a gap, a MASK of the prefix, at least one symbol of content is drawn, and MASK closes it. END
follows the last. So what is drawn differs from its source in the gaps alone, and its probability
is that of the symbols in the gaps. Of the visible symbols those far before a gap may be left out
(`context`), which stand in the prefix all the same; `filled` puts them back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calib_ebm.noise.masking import before_gaps
from calib_ebm.noise.vocabulary import LmVocabulary

EMPTY, FILLED, MUST_CLOSE = range(3)
"""Of a gap: it needs a symbol, it may be closed, there is room for nothing but to close it."""
SURE = 1e4
"""By how many nats a given symbol's logit stands above all others."""


class GapGrammar:
    """The states of noise texts that are being written along their prefixes.

    A state is 3 * place + what is the matter there; places are those of all prefixes in a row, each
    with END behind it. The interface is that of `Grammar`.

    Args:
        vocabulary: of the noise model.
        max_symbols: symbols of a noise text at most, the given ones, MASK and END included. Where
            they would not suffice, gaps are closed in time.
        context: visible symbols before a gap that are read once more; None: all.
        prefixes: what the texts are drawn around; none before `given` has been called.
    """

    def __init__(
        self,
        vocabulary: LmVocabulary,
        max_symbols: int,
        context: int | None = None,
        prefixes: Sequence[Sequence[int]] = (),
    ) -> None:
        self.vocabulary, self.max_symbols, self.context = vocabulary, max_symbols, context
        symbols = vocabulary.symbols
        self.mask_symbol, self.end = symbols.mask, symbols.end
        self.content_V = torch.from_numpy(vocabulary.drawable_V)
        self.ways = self.along(prefixes)
        """What each text is written along."""
        rows = [[*way, symbols.end] for way in self.ways]
        for row in rows:
            assert self._shortest(row) <= max_symbols, "the budget leaves room for every gap"
        self.given_P = torch.tensor([symbol for row in rows for symbol in row], dtype=torch.long)
        self.start_B = torch.tensor([0, *map(len, rows)], dtype=torch.long).cumsum(0)[:-1]
        # What must still be written when all before a place stands.
        least = [self._shortest(row[place:]) for row in rows for place in range(len(row))]
        self.least_P = torch.tensor(least, dtype=torch.long)

    def _shortest(self, row: Sequence[int]) -> int:
        """Symbols that must be written for these: a gap takes one, and one to close it."""
        return len(row) + sum(symbol == self.mask_symbol for symbol in row)

    def along(self, prefixes: Sequence[Sequence[int]]) -> list[list[int]]:
        """What the texts are written along: of each prefix the gaps, and what is read again."""
        return [along_gaps(prefix, self.mask_symbol, self.context) for prefix in prefixes]

    def given(self, prefixes: Sequence[Sequence[int]]) -> GapGrammar:
        """The states of texts around these prefixes."""
        grammar = GapGrammar(self.vocabulary, self.max_symbols, self.context, prefixes)
        return grammar.to(self.content_V.device)

    def to(self, device: torch.device) -> GapGrammar:
        """The same with its tables on a device."""
        self.content_V, self.given_P = self.content_V.to(device), self.given_P.to(device)
        self.start_B, self.least_P = self.start_B.to(device), self.least_P.to(device)
        return self

    def begin(self, size: int) -> Tensor:
        """States of the texts before their first symbol."""
        assert size == len(self.start_B)
        return 3 * self.start_B

    def at(self, state_B: Tensor, written: int | Tensor) -> Tensor:
        """States when `written` symbols stand: a gap closes before what follows lacks room.

        Args:
            state_B: states behind the last symbol.
            written: symbols of all texts, or of each, (B,).
        """
        place_B = state_B // 3
        # One more symbol, and then MASK and what follows the gap: all but one of the least there.
        least_B = self.least_P[place_B.clamp(max=len(self.least_P) - 1)]
        needed_B = written + 1 + least_B - 1
        is_filled_B = (self._symbol(place_B) == self.mask_symbol) & (state_B % 3 == FILLED)
        return torch.where(
            is_filled_B & (needed_B > self.max_symbols), 3 * place_B + MUST_CLOSE, state_B
        )

    def _symbol(self, place_B: Tensor) -> Tensor:
        # States behind a guess that was none may lie anywhere; nothing is drawn from them.
        return self.given_P[place_B.clamp(max=len(self.given_P) - 1)]

    def ban(self, logits_BV: Tensor, state_B: Tensor) -> Tensor:
        """Float32 logits: in a gap -inf at what may not follow, else one symbol far above all."""
        logits_BV = logits_BV.float()
        place_B, gap_B = state_B // 3, state_B % 3
        symbol_B = self._symbol(place_B)
        is_gap_B = symbol_B == self.mask_symbol
        scores_BV = logits_BV.masked_fill(~self.content_V, -torch.inf)
        open_B = is_gap_B & (gap_B == FILLED)
        scores_BV[open_B, self.mask_symbol] = logits_BV[open_B, self.mask_symbol]
        sure_B = ~is_gap_B | (gap_B == MUST_CLOSE)
        top_B = scores_BV[sure_B].amax(dim=-1)
        scores_BV[sure_B, symbol_B[sure_B]] = top_B + SURE
        return scores_BV

    def after(self, state_B: Tensor, symbol_B: Tensor) -> Tensor:
        """States after a symbol each."""
        place_B = state_B // 3
        in_gap_B = (self._symbol(place_B) == self.mask_symbol) & (symbol_B != self.mask_symbol)
        # A finished text is read on until it leaves its batch; it must not run into its neighbour.
        moved_B = torch.where(symbol_B == self.end, place_B, place_B + 1)
        return torch.where(in_gap_B, 3 * place_B + FILLED, 3 * moved_B)


def along_gaps(prefix: Sequence[int], mask: int, context: int | None) -> list[int]:
    """The gaps of a prefix, and the visible symbols at most `context` before each.

    >>> along_gaps([5, 6, 0, 7, 8, 9], mask=0, context=1)
    [6, 0]
    """
    near = before_gaps([symbol == mask for symbol in prefix], context)
    return [s for s, again in zip(prefix, near, strict=True) if again or s == mask]


def filled(
    prefix: Sequence[int], along: Sequence[int], written: Sequence[int], mask: int
) -> list[int]:
    """The prefix with what was written in its gaps, without what closes them and without END.

    Args:
        prefix: what the text was drawn around.
        along: what it was written along, as `along_gaps` gives it.
        written: a symbol for each visible one of `along`; content and MASK for each gap.
        mask: the symbol of a gap, and of its end.

    >>> filled([5, 6, 0, 7, 8, 9], [6, 0], [6, 1, 2, 0], mask=0)
    [5, 6, 1, 2, 7, 8, 9]
    """
    symbols, contents = iter(written), []
    for guide in along:
        if guide == mask:
            contents.append(list(iter(symbols.__next__, mask)))
        else:
            next(symbols)
    gaps = iter(contents)
    return [t for symbol in prefix for t in (next(gaps) if symbol == mask else [symbol])]
