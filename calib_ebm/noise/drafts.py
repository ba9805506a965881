"""What a text probably copies next from its prefix: drafts, to read several symbols at once.

Most of a noise text stands in its prefix, in order. Where the text has just copied a symbol, the
next ones of the prefix are a good guess; where it fills a gap, what stands behind the gap is.
A guess costs reading it and changes no distribution: `draw_symbols` takes it only if it is what
would have been drawn. That is the rejection rule of speculative decoding (Leviathan et al., ICML
2023) for a draft that is certain of its guess d: accepted with probability p(d), else drawn from p
without d; and the draw is the very one that reading symbol by symbol would have made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from calib_ebm.noise.padding import pad_right

NOTHING = -1
WIDEST = 4
"""Symbols guessed at once, at most."""
NEVER, ALWAYS = 1.0, 0.0


def worth_on(device: torch.device) -> float:
    """How probably a guess must be right to be worth reading.

    Reading one more symbol costs a CPU almost as much as any: with a noise model of perplexity 4.7
    guesses made drawing slower there at every batch size tried, and so none are made. A GPU waits
    for its memory anyhow.
    """
    return NEVER if device.type == "cpu" else 0.4


class Drafts:
    """Guesses for the rows of a batch.

    Args:
        prefixes: what the texts are drawn around.
        mask: the symbol that stands for a gap.
        device: where guesses are wanted.
        worth: how probably a guess must be right to be made; 0: all are made, 1: none.
    """

    def __init__(
        self,
        prefixes: Sequence[Sequence[int]],
        mask: int,
        device: torch.device,
        worth: float,
    ) -> None:
        behind = [NOTHING] * (WIDEST + 2)
        self.given_BP = pad_right([[*row, *behind] for row in prefixes], NOTHING).to(device)
        self.mask = mask
        self.at_B = torch.zeros(len(prefixes), dtype=torch.long, device=device)
        """Place in the prefix of what is expected next."""
        self.filled_B = torch.zeros(len(prefixes), dtype=torch.bool, device=device)
        """Whether the gap there has got a symbol."""
        self.worth = worth
        self.made, self.right = 0, 0

    @property
    def width(self) -> int:
        """How many symbols are worth guessing: the last of them must be right so probably."""
        if self.worth in (NEVER, ALWAYS):
            return WIDEST if self.worth == ALWAYS else 0
        rate = (self.right + 1) / (self.made + 1)
        return WIDEST if rate >= 1 else min(WIDEST, int(math.log(self.worth) / math.log(rate)))

    def next(self, most_B: Tensor) -> tuple[Tensor, Tensor]:
        """Guesses (B, D), and how many each row has, at most `most_B`; `NOTHING` behind these."""
        width = self.width
        if width == 0:
            return self.at_B.new_zeros(len(self.at_B), 0), torch.zeros_like(self.at_B)
        in_gap_B = self._given(self.at_B) == self.mask
        first_B = self.at_B + (in_gap_B & self.filled_B)
        place_BD = first_B[:, None] + torch.arange(width, device=self.at_B.device)
        draft_BD = self.given_BP.gather(1, place_BD.clamp(max=self.given_BP.shape[1] - 1))
        known_BD = (draft_BD != self.mask) & (draft_BD != NOTHING)
        count_B = torch.minimum(known_BD.long().cumprod(dim=1).sum(dim=1), most_B)
        draft_BD = draft_BD[:, : int(count_B.max())]
        beyond_BD = torch.arange(draft_BD.shape[1], device=count_B.device) >= count_B[:, None]
        return draft_BD.masked_fill(beyond_BD, NOTHING), count_B

    def follow(self, symbol_B: Tensor, wrote_B: Tensor) -> None:
        """Go on behind one symbol each; rows that did not write stay."""
        here_B, behind_B = self._given(self.at_B), self._given(self.at_B + 1)
        gap_B = here_B == self.mask
        copied_B = wrote_B & ~gap_B & (symbol_B == here_B)
        closed_B = wrote_B & gap_B & self.filled_B & (symbol_B == behind_B)
        self.at_B = self.at_B + copied_B + 2 * closed_B
        self.filled_B = torch.where(wrote_B, gap_B & ~closed_B, self.filled_B)

    def learn(self, made_B: Tensor, right_B: Tensor) -> None:
        """How many guesses each row had, and how many of these were right, one behind another."""
        # Behind the first wrong guess nothing is learnt.
        looked_at = int(torch.minimum(made_B, right_B + 1).sum())
        self.made, self.right = self.made + looked_at, self.right + int(right_B.sum())

    def keep(self, order_B: Tensor) -> None:
        """Go on with these rows only, in this order."""
        self.given_BP, self.at_B = self.given_BP[order_B], self.at_B[order_B]
        self.filled_B = self.filled_B[order_B]

    def _given(self, place_B: Tensor) -> Tensor:
        return self.given_BP.gather(1, place_B.clamp(max=self.given_BP.shape[1] - 1)[:, None])[:, 0]
