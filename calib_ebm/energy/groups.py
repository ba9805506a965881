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
from torch import Tensor

from calib_ebm.energy.network import EnergyNetwork, Scores
from calib_ebm.shapes import TokenBatch


def score_in_groups(
    network: EnergyNetwork, tokens: TokenBatch, label_B: Tensor | None = None, groups: int = 1
) -> Scores:
    """Logits and energies of B texts, in their order, from at most `groups` passes.

    Args:
        network: classifier and energy.
        tokens: padded input.
        label_B: for energies that read labels, as in `EnergyNetwork.forward`.
        groups: passes at most; 1 pads all texts to the longest.
    """
    if groups == 1:
        return network(tokens, label_B)
    cut = in_groups(tokens, groups)
    parts = [
        network(group, None if label_B is None else label_B[rows.to(label_B.device)])
        for rows, group in cut
    ]
    back = torch.cat([rows for rows, _ in cut]).argsort()
    energies = [part.energy_B for part in parts if part.energy_B is not None]
    logits_BC = torch.cat([part.logits_BC for part in parts])
    back = back.to(logits_BC.device)
    return Scores(logits_BC[back], torch.cat(energies)[back] if energies else None)


def in_groups(tokens: TokenBatch, groups: int) -> list[tuple[Tensor, TokenBatch]]:
    """At most `groups` groups by length: the rows of each, and their tokens without the padding."""
    length_B = tokens.attention_mask_BT.sum(dim=1).cpu()
    return [
        (rows, _trimmed(tokens, rows, int(length_B[rows].max())))
        for rows in cut_by_length(length_B.tolist(), groups)
    ]


def _trimmed(tokens: TokenBatch, rows: Tensor, longest: int) -> TokenBatch:
    rows = rows.to(tokens.input_ids_BT.device)
    types_BT = tokens.token_type_ids_BT
    # Padding is on the right.
    return TokenBatch(
        tokens.input_ids_BT[rows, :longest],
        tokens.attention_mask_BT[rows, :longest],
        None if types_BT is None else types_BT[rows, :longest],
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
