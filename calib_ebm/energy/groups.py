"""One batch, encoded in groups of similar length: the same scores from fewer padded tokens.

Batches are plain random draws, as the gradient wants them (`tokens/order.py`), so their texts
differ in length: of 64 texts of SST-2, padded to the longest, one token in three is real. Cut into
a few groups by length, each padded to its own longest, they cost little more than their real
tokens. Nothing in a transformer looks from one text to another, so the scores are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from calib_ebm.energy.network import EnergyNetwork, Scores
from calib_ebm.shapes import TokenBatch


class Grouped:
    """Scores texts in ordinary passes, one for each of at most so many groups by length.

    Args:
        network: classifier and energy.
        groups: passes at most; 1 pads all texts to the longest.
    """

    def __init__(self, network: EnergyNetwork, groups: int = 1) -> None:
        self.network, self.groups = network, groups

    def __call__(self, tokens: TokenBatch, label_B: Tensor | None = None) -> Scores:
        """Logits and energies of B texts, in their order.

        Args:
            tokens: padded input.
            label_B: for energies that read labels, as in `EnergyNetwork.forward`.
        """
        if self.groups == 1:
            return self.network(tokens, label_B)
        cut = in_groups(tokens, self.groups)
        parts = [
            self.network(group, None if label_B is None else label_B[rows.to(label_B.device)])
            for rows, group in cut
        ]
        back = torch.cat([rows for rows, _ in cut]).argsort()
        energies = [part.energy_B for part in parts if part.energy_B is not None]
        logits_BC = torch.cat([part.logits_BC for part in parts])
        back = back.to(logits_BC.device)
        return Scores(logits_BC[back], torch.cat(energies)[back] if energies else None)

    def hidden(self, tokens: TokenBatch, encoder: nn.Module | None = None) -> Tensor:
        """Last hidden states of the N tokens of B texts, (N, H), of this encoder or another.

        Text after text: those of `tokens.attention_mask_BT`, read row by row.
        """
        is_real_BT = tokens.attention_mask_BT.bool()
        place_BT = is_real_BT.flatten().cumsum(0).view_as(is_real_BT) - 1
        hidden, places = [], []
        for rows, group in in_groups(tokens, self.groups):
            real_BT = group.attention_mask_BT.bool()
            hidden.append(self.network.hidden(group, encoder)[real_BT])
            places.append(place_BT[rows.to(place_BT.device), : real_BT.shape[1]][real_BT])
        return torch.cat(hidden)[torch.cat(places).argsort()]


def in_groups(tokens: TokenBatch, groups: int) -> list[tuple[Tensor, TokenBatch]]:
    """At most `groups` groups by length: the rows of each, and their tokens without the padding."""
    length_B = lengths_of(tokens)
    return [
        (rows, _cut(tokens, rows, int(length_B[rows].max())))
        for rows in cut_by_length(length_B.tolist(), groups)
    ]


def trimmed(tokens: TokenBatch, rows: Tensor) -> TokenBatch:
    """Some rows without the padding that none of them needs."""
    return _cut(tokens, rows, int(lengths_of(tokens)[rows].max()))


def lengths_of(tokens: TokenBatch) -> Tensor:
    """Tokens of each text, (B), on the host."""
    if tokens.length_B is not None:
        return torch.from_numpy(tokens.length_B)
    return tokens.attention_mask_BT.sum(dim=1).cpu()


def _cut(tokens: TokenBatch, rows: Tensor, longest: int) -> TokenBatch:
    length_B = None if tokens.length_B is None else tokens.length_B[rows.numpy()]
    rows = rows.to(tokens.input_ids_BT.device)
    types_BT = tokens.token_type_ids_BT
    # Padding is on the right.
    return TokenBatch(
        tokens.input_ids_BT[rows, :longest],
        tokens.attention_mask_BT[rows, :longest],
        None if types_BT is None else types_BT[rows, :longest],
        length_B,
    )


def cut_by_length(lengths: Sequence[int], groups: int) -> list[Tensor]:
    """Rows in at most `groups` groups by length, cut so that padding is the least there can be.

    Texts of one length stay together. Exact, by dynamic programming over the different lengths.

    >>> [rows.tolist() for rows in cut_by_length([3, 9, 3, 8, 20], 3)]
    [[0, 2], [1, 3], [4]]
    """
    length_L, row_to_l, count_L = np.unique(lengths, return_inverse=True, return_counts=True)
    ends = _cheapest_ends(length_L, count_L, min(groups, len(length_L)))
    group_B = np.searchsorted(ends, row_to_l, side="left")
    return [torch.from_numpy(np.flatnonzero(group_B == group)) for group in range(len(ends))]


def _cheapest_ends(length_L: np.ndarray, count_L: np.ndarray, groups: int) -> np.ndarray:
    """Index of the last length of each group, for the least sum of (longest x texts)."""
    size = len(length_L)
    before = np.concatenate(([0], np.cumsum(count_L)))
    # Tokens of a group that begins with length i and ends with length j.
    cost_LL = np.where(
        np.tri(size, dtype=bool).T,
        length_L[None, :] * (before[None, 1:] - before[:-1, None]),
        np.inf,
    )
    best_L, choices = cost_LL[0], []
    for _ in range(groups - 1):
        # Best of: the groups so far end at i - 1, the next one is i ... j.
        through_LL = np.concatenate(([np.inf], best_L[:-1]))[:, None] + cost_LL
        choices.append(through_LL.argmin(axis=0))
        best_L = through_LL.min(axis=0)
    ends = [size - 1]
    for choice in reversed(choices):
        ends.append(int(choice[ends[-1]]) - 1)
    return np.asarray(ends[::-1])
