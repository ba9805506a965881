"""The distribution that tokens are drawn from: banned symbols, temperature and top-k.

Drawing and scoring both go through `filtered_top`, so that the probability of a noise text is that
of the procedure which drew it, the filter included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        top_k: only the k most probable tokens are drawn; 0 draws from all.
        temperature: logits are divided by it.
    """

    top_k: int = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise InputError(
                f"noise.top_k is {self.top_k}.",
                "a whole number from 0 (0: no cut)",
                "Set noise.top_k=20.",
            )
        if not self.temperature > 0:
            raise InputError(
                f"noise.temperature is {self.temperature}.",
                "a number above 0",
                "Set noise.temperature=1.",
            )


class TopProbs(NamedTuple):
    """S candidates a row; their probabilities sum to 1, and -inf marks what cannot be drawn."""

    log_probs_BS: Tensor
    ids_BS: Tensor | None
    """None: the candidates are all of the vocabulary, in order."""


def filtered_top(logits_BV: Tensor, sampling: Sampling, banned_BV: Tensor) -> TopProbs:
    """The candidates of each row and their log-probabilities.

    Args:
        logits_BV: next-token logits.
        sampling: temperature and top-k.
        banned_BV: True where a token cannot be drawn; the cut to k counts only the others.
            Broadcastable.

    Of equal logits at the edge of the cut, those of lower id stay.
    """
    return top_of(logits_BV.float().masked_fill(banned_BV, -torch.inf), sampling)


def top_of(scores_BV: Tensor, sampling: Sampling) -> TopProbs:
    """As `filtered_top`, of logits in float32 in which -inf stands for what is banned."""
    k = sampling.top_k
    if k == 0 or k >= scores_BV.shape[-1]:
        return TopProbs((scores_BV / sampling.temperature).log_softmax(dim=-1), None)
    top_BS, ids_BS = scores_BV.topk(k + 1, dim=-1)
    tied_B = top_BS[:, k - 1] == top_BS[:, k]
    top_BS, ids_BS = top_BS[:, :k], ids_BS[:, :k]
    if bool(tied_B.any()):
        # topk leaves open which of equal logits it takes; a stable sort does not.
        sorted_BV = scores_BV[tied_B].sort(dim=-1, descending=True, stable=True)
        top_BS[tied_B], ids_BS[tied_B] = sorted_BV.values[:, :k], sorted_BV.indices[:, :k]
    return TopProbs((top_BS / sampling.temperature).log_softmax(dim=-1), ids_BS)


def filtered_log_probs(logits_BV: Tensor, sampling: Sampling, banned_BV: Tensor) -> Tensor:
    """Log-probability of each token of the vocabulary to be drawn next; -inf where it cannot be.

    >>> logits = torch.tensor([[2.0, 1.0, 0.0, 5.0]])
    >>> banned = torch.tensor([False, False, False, True])
    >>> filtered_log_probs(logits, Sampling(top_k=2), banned).exp()
    tensor([[0.7311, 0.2689, 0.0000, 0.0000]])
    """
    top = filtered_top(logits_BV, sampling, banned_BV)
    if top.ids_BS is None:
        return top.log_probs_BS
    everywhere_BV = torch.full_like(logits_BV, -torch.inf, dtype=torch.float)
    return everywhere_BV.scatter(-1, top.ids_BS, top.log_probs_BS)


def draw_from(top: TopProbs, uniform_B: Tensor) -> Tensor:
    """One token a row by inversion: the candidate in whose share of [0, 1) its number falls.

    The draw of a row depends on its own number alone, not on its neighbours in the batch.
    """
    share_BS = top.log_probs_BS.double().exp().cumsum(dim=-1)
    # A number below 1 falls below the whole even when rounded: never on a candidate without share.
    chosen_B = (share_BS <= uniform_B.double()[:, None] * share_BS[:, -1:]).sum(dim=-1)
    return chosen_B if top.ids_BS is None else top.ids_BS.gather(-1, chosen_B[:, None])[:, 0]
