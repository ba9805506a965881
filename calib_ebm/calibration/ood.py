"""In against out of distribution: how well one number per text tells the two apart.

    energy      -E(x): low energy looks like data
    max_prob    the confidence max_c p_c
    entropy     minus the entropy of the probabilities
    margin      the largest probability less the second

All are turned so that high means in-distribution. AUROC is the chance that a text from inside has
a higher score than one from outside, ties counting half; FPR at 95% TPR is the share of texts from
outside that are let in by the highest threshold that lets in at least 95% of those from inside
(texts at the threshold are let in). Neither depends on how many texts there are of each kind, their
intervals do, and what a threshold means in use does: `Separation` carries the two numbers, and a
page states in : out beside the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.checks import check_probabilities, check_scores
from calib_ebm.calibration.intervals import Estimate, percentile_interval
from calib_ebm.calibration.resample import CHUNK
from calib_ebm.errors import InputError

TPR = 0.95


class Separation(NamedTuple):
    """AUROC and FPR at 95% TPR with their 95% intervals, and how many texts are behind them."""

    auroc: Estimate
    fpr: Estimate
    texts_in: int
    texts_out: int

    @property
    def ratio(self) -> str:
        """In : out, as a page writes it.

        >>> Separation(Estimate(0.9, 0.8, 1.0), Estimate(0.2, 0.1, 0.3), 436, 872).ratio
        '436:872 (1:2.00)'
        """
        share = self.texts_out / self.texts_in
        return f"{self.texts_in}:{self.texts_out} (1:{share:.2f})"


# --- Scores ---


def max_prob_score(probs_NC: Tensor) -> Tensor:
    """The confidence."""
    check_probabilities(probs_NC)
    return probs_NC.double().amax(dim=1)


def entropy_score(probs_NC: Tensor) -> Tensor:
    """Sum over classes of p log p, from -log C to 0; a probability of zero adds none."""
    check_probabilities(probs_NC)
    return torch.special.xlogy(probs_NC.double(), probs_NC.double()).sum(dim=1)


def margin_score(probs_NC: Tensor) -> Tensor:
    """The largest probability less the second largest."""
    check_probabilities(probs_NC)
    first_N, second_N = probs_NC.double().topk(2, dim=1).values.T
    return first_N - second_N


def energy_score(energy_N: Tensor) -> Tensor:
    """Minus the energy."""
    check_scores(energy_N, "energies")
    return -energy_N.double()


OF_PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "max_prob": max_prob_score,
    "entropy": entropy_score,
    "margin": margin_score,
}


def scores(probs_NC: Tensor, energy_N: Tensor | None = None) -> dict[str, Tensor]:
    """All scores of a set by name, the energy's only where there is one."""
    named = {name: score(probs_NC) for name, score in OF_PROBABILITIES.items()}
    return named if energy_N is None else {"energy": energy_score(energy_N), **named}


# --- Figures ---


def auroc(score_in_N: Tensor, score_out_M: Tensor) -> Tensor:
    """P(score inside > score outside) + P(they are equal) / 2.

    >>> auroc(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.0]))     # (1 + 1 + 1/2 + 1) / 4
    tensor(0.8750, dtype=torch.float64)
    """
    return _auroc_each(*_one_column(score_in_N, score_out_M))[0]


def fpr_at_tpr(score_in_N: Tensor, score_out_M: Tensor, tpr: float = TPR) -> Tensor:
    """Share of texts from outside let in, where at least `tpr` of those from inside are.

    >>> fpr_at_tpr(torch.arange(1.0, 101), torch.tensor([0.0, 5.0, 6.0, 7.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    if not 0 < tpr <= 1:
        raise InputError(f"tpr is {tpr}.", "a number above 0 and up to 1", "Leave it at .95.")
    return _fpr_each(*_one_column(score_in_N, score_out_M), tpr)[0]


def separation(
    score_in_N: Tensor, score_out_M: Tensor, *, resamples: int = 1000, seed: int = 0
) -> Separation:
    """Both figures with percentile intervals; texts inside and outside are resampled each alone.

    Args:
        score_in_N: of texts from the model's own distribution; high means inside.
        score_out_M: of texts from elsewhere.
        resamples: of the bootstrap.
        seed: of a generator of its own.

    Raises:
        InputError: for scores that are none, NaN, or of no text.
    """
    count_in_RU, count_out_RU = _one_column(score_in_N, score_out_M)
    if resamples < 2:
        given = f"resamples is {resamples}."
        raise InputError(given, "a whole number from 2", "Leave it at 1,000.")
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, min(resamples, CHUNK // (len(score_in_N) + len(score_out_M))))
    aurocs: list[Tensor] = []
    fprs: list[Tensor] = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn_in_RU = _resampled(count_in_RU[0], rows, generator)
        drawn_out_RU = _resampled(count_out_RU[0], rows, generator)
        aurocs.append(_auroc_each(drawn_in_RU, drawn_out_RU))
        fprs.append(_fpr_each(drawn_in_RU, drawn_out_RU, TPR))
    return Separation(
        percentile_interval(_auroc_each(count_in_RU, count_out_RU).item(), torch.cat(aurocs)),
        percentile_interval(_fpr_each(count_in_RU, count_out_RU, TPR).item(), torch.cat(fprs)),
        len(score_in_N),
        len(score_out_M),
    )


def _one_column(score_in_N: Tensor, score_out_M: Tensor) -> tuple[Tensor, Tensor]:
    """How many texts of each kind have each of the U distinct scores, rising; 1 by U."""
    check_scores(score_in_N, "scores inside")
    check_scores(score_out_M, "scores outside")
    both = torch.cat([score_in_N.detach().cpu().double(), score_out_M.detach().cpu().double()])
    distinct_U, group = both.unique(sorted=True, return_inverse=True)
    split = len(score_in_N)
    count_in_U, count_out_U = (
        torch.bincount(part, minlength=len(distinct_U)).double()
        for part in (group[:split], group[split:])
    )
    return count_in_U[None], count_out_U[None]


def _resampled(count_U: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """As many texts drawn with replacement from those counted, R by U."""
    texts, distinct = int(count_U.sum()), len(count_U)
    group_N = torch.repeat_interleave(torch.arange(distinct), count_U.long())
    drawn_RN = group_N[torch.randint(texts, (resamples, texts), generator=generator)]
    flat = (drawn_RN + distinct * torch.arange(resamples)[:, None]).view(-1)
    return torch.bincount(flat, minlength=resamples * distinct).view(resamples, distinct).double()


def _auroc_each(count_in_RU: Tensor, count_out_RU: Tensor) -> Tensor:
    below_RU = count_out_RU.cumsum(dim=1) - count_out_RU
    won_R = (count_in_RU * (below_RU + count_out_RU / 2)).sum(dim=1)
    return won_R / (count_in_RU.sum(dim=1) * count_out_RU.sum(dim=1))


def _fpr_each(count_in_RU: Tensor, count_out_RU: Tensor, tpr: float) -> Tensor:
    texts = int(count_in_RU[0].sum())
    # Whole texts: of 20 at .95 it is 19, although 20 * .95 may come out a hair above.
    needed = max(1, math.ceil(texts * tpr - 1e-9))
    in_from_top_RU = count_in_RU.flip(1).cumsum(dim=1).contiguous()
    out_from_top_RU = count_out_RU.flip(1).cumsum(dim=1)
    wanted_R1 = in_from_top_RU.new_full((len(count_in_RU), 1), needed)
    place_R1 = torch.searchsorted(in_from_top_RU, wanted_R1)
    return (out_from_top_RU.gather(1, place_R1) / out_from_top_RU[:, -1:])[:, 0]
