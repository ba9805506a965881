"""Which symbol may follow in a noise text, so that every noise text is a text.

A text holds at least one token; a pair holds exactly one PAIR symbol with at least one token on
each side; in mode `labelled` one label symbol comes first. Symbols that would break this are banned
before the cut to the top k, when noise is drawn and when it is scored: so nothing has to be thrown
away, and the probability of a noise text stays exact. A pair that is about to be cut for its length
gets its separator in time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calib_ebm.noise.vocabulary import LmVocabulary

LABEL, FIRST_A, A, MUST_PAIR, FIRST_B, B = range(6)
"""States: what is written next. A single text has only its last part, B."""


class Grammar:
    """The states of a noise text that is being written.

    Args:
        vocabulary: of the noise model.
        pairs: whether texts are pairs.
        labelled: whether a label symbol comes first.
        max_symbols: symbols that are drawn at most, END included; who gets there is cut.
    """

    def __init__(
        self, vocabulary: LmVocabulary, *, pairs: bool, labelled: bool, max_symbols: int
    ) -> None:
        symbols = vocabulary.symbols
        self.pair_symbol, self.pairs, self.max_symbols = symbols.pair, pairs, max_symbols
        self.text_start = FIRST_A if pairs else FIRST_B
        self.start = LABEL if labelled else self.text_start
        allowed_SV = torch.from_numpy(vocabulary.drawable_V).repeat(6, 1)
        allowed_SV[[LABEL, MUST_PAIR]] = False
        allowed_SV[LABEL, list(symbols.labels)] = True
        allowed_SV[[A, MUST_PAIR], symbols.pair] = True
        allowed_SV[B, symbols.end] = True
        self.banned_SV = ~allowed_SV
        # What no state but these two bans, most of V, need not be looked at for every symbol drawn.
        wide = [state for state in range(6) if state not in (LABEL, MUST_PAIR)]
        self.sometimes_W = self.banned_SV[wide].any(dim=0).nonzero()[:, 0]
        self.next_S = torch.tensor([self.text_start, A, A, FIRST_B, B, B])

    def to(self, device: torch.device) -> Grammar:
        """The same with its tables on a device."""
        self.banned_SV, self.next_S = self.banned_SV.to(device), self.next_S.to(device)
        self.sometimes_W = self.sometimes_W.to(device)
        return self

    def given(self, prefixes: Sequence[Sequence[int]]) -> Grammar:
        """This one: what may follow does not depend on what a text is drawn around."""
        return self

    def along(self, prefixes: Sequence[Sequence[int]]) -> list[list[int]]:
        """What of its prefix a text probably copies, in order: all."""
        return [list(prefix) for prefix in prefixes]

    def begin(self, size: int) -> Tensor:
        """States of `size` texts before their first symbol."""
        return torch.full((size,), self.start, device=self.next_S.device)

    def at(self, state_B: Tensor, written: int | Tensor) -> Tensor:
        """States when `written` symbols stand: a pair gets its separator before it is cut.

        Args:
            state_B: states behind the last symbol.
            written: symbols of all texts, or of each, (B,).
        """
        if not self.pairs:
            return state_B
        late = self.max_symbols - written <= 2
        return torch.where((state_B == A) & late, MUST_PAIR, state_B)

    def ban(self, logits_BV: Tensor, state_B: Tensor) -> Tensor:
        """Float32 logits with -inf at what may not follow, written in place where they are that."""
        logits_BV = logits_BV.float()
        narrow_B = (state_B == LABEL) | (state_B == MUST_PAIR)
        if bool(narrow_B.any()):
            logits_BV[narrow_B] = logits_BV[narrow_B].masked_fill(
                self.banned_SV[state_B[narrow_B]], -torch.inf
            )
        banned_BW = self.banned_SV[:, self.sometimes_W][state_B]
        sometimes_BW = logits_BV[:, self.sometimes_W].masked_fill(banned_BW, -torch.inf)
        logits_BV[:, self.sometimes_W] = sometimes_BW
        return logits_BV

    def after(self, state_B: Tensor, symbol_B: Tensor) -> Tensor:
        """States after a symbol each."""
        paired_B = (state_B == A) & (symbol_B == self.pair_symbol)
        return torch.where(paired_B, FIRST_B, self.next_S[state_B])

    def states(self, symbols_BT: Tensor) -> Tensor:
        """The state before each symbol of written texts, as (B, T)."""
        states = []
        state_B = self.begin(len(symbols_BT))
        for place in range(symbols_BT.shape[1]):
            state_B = self.at(state_B, place)
            states.append(state_B)
            state_B = self.after(state_B, symbols_BT[:, place])
        return torch.stack(states, dim=1)
