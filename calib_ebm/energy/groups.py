"""One batch, encoded in groups of similar length: the same scores from fewer padded tokens.

Batches are plain random draws, as the gradient wants them (`tokens/order.py`), so their texts
differ in length. Padding all to the longest would often double the work; cut into a few groups by
length, each padded to its own longest, they cost little more than their real tokens. Nothing in a
transformer looks from one text to another, so the scores are the same.
"""

from __future__ import annotations

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
        groups: groups of as equal a number of texts as can be; 1 is one pass padded to the longest.
    """
    if groups == 1:
        return network(tokens, label_B)
    length_B = tokens.attention_mask_BT.sum(dim=1)
    by_length = length_B.argsort(stable=True)
    parts = [
        _score_rows(network, tokens, label_B, rows)
        for rows in by_length.tensor_split(min(groups, len(by_length)))
    ]
    back = by_length.argsort()
    energies = [part.energy_B for part in parts if part.energy_B is not None]
    return Scores(
        torch.cat([part.logits_BC for part in parts])[back],
        torch.cat(energies)[back] if energies else None,
    )


def _score_rows(
    network: EnergyNetwork, tokens: TokenBatch, label_B: Tensor | None, rows: Tensor
) -> Scores:
    # Padding is on the right.
    longest = int(tokens.attention_mask_BT[rows].sum(dim=1).max())
    types_BT = tokens.token_type_ids_BT
    group = TokenBatch(
        tokens.input_ids_BT[rows, :longest],
        tokens.attention_mask_BT[rows, :longest],
        None if types_BT is None else types_BT[rows, :longest],
    )
    return network(group, None if label_B is None else label_B[rows])
