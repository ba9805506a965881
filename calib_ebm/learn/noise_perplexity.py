"""How well a noise model knows texts: log-likelihood of its targets, perplexity, its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from calib_ebm.learn.noise_batches import IGNORED, LmBatch, LmBatches
from calib_ebm.learn.team import ALONE, Team
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import MEASURING
from calib_ebm.noise.modes import Lengths, Mode
from calib_ebm.noise.padding import length_batches
from calib_ebm.shapes import Encoded

EVAL_BATCH = 16
"""Texts measured at once: the logits of GPT-2 at 128 targets of a text take 25 MB."""


def nll_by_text(lm: NoiseLm, batch: LmBatch) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each text, summed over its targets, and their numbers; both (B,).

    Only the places that have a target reach the output layer, which is most of a small model's
    work.
    """
    asked_BT = batch.target_BT != IGNORED
    kwargs: dict[str, Any] = {}
    if batch.mask_BT is not None and batch.types_BT is not None:
        kwargs["attention_mask"] = batch.mask_BT
        if int(batch.types_BT.max()) > 0:
            kwargs["token_type_ids"] = batch.types_BT
    logits_NV = lm.target_logits(batch.input_ids_BT, asked_BT, **kwargs)
    nll_N = cross_entropy(logits_NV.float(), batch.target_BT[asked_BT], reduction="none")
    count_B = asked_BT.sum(dim=1)
    row_N = torch.arange(len(count_B), device=nll_N.device).repeat_interleave(count_B)
    return nll_N.new_zeros(len(count_B)).index_add(0, row_N, nll_N), count_B


def nll_sum(lm: NoiseLm, batch: LmBatch) -> tuple[Tensor, int]:
    """Negative log-likelihood summed over the targets of a batch, and their number."""
    nll_B, count_B = nll_by_text(lm, batch)
    return nll_B.sum(), int(count_B.sum())


class Perplexity(NamedTuple):
    """exp of the mean negative log-likelihood of a token, each token counted once."""

    value: float | None
    tokens: int
    unknown_share: float | None
    low: float | None = None
    """Ends of the 95% interval over texts."""
    high: float | None = None


def ratio_interval(total_N: Tensor, count_N: Tensor) -> tuple[float, float, float]:
    """Sum of totals by sum of counts, with a normal 95% interval over texts.

    A ratio of two sums: its error is that of the residuals total - ratio * count (Cochran, Sampling
    Techniques, section 6.3).

    >>> ratio_interval(torch.tensor([2.0, 4.0]), torch.tensor([1, 2]))
    (2.0, 2.0, 2.0)
    """
    total_N, count_N = total_N.double(), count_N.double()
    ratio = total_N.sum() / count_N.sum()
    size = len(total_N)
    residual = (total_N - ratio * count_N).square().sum().sqrt() / count_N.sum()
    error = 1.959964 * float(residual) * math.sqrt(size / max(1, size - 1))
    return float(ratio), float(ratio) - error, float(ratio) + error


@torch.inference_mode()
def perplexity(
    lm: NoiseLm,
    texts: Sequence[Encoded],
    mode: Mode,
    lengths: Lengths,
    seed: int,
    team: Team = ALONE,
) -> Perplexity:
    """Token-weighted perplexity of texts under masks of their own, the same at each call.

    Averaging the means of batches or texts instead would weigh short texts too much. Processes
    take batches in turn, so that each is of the same texts however many there are.
    """
    batches = LmBatches(lm, texts, mode, lengths, seed)
    was_training = lm.training
    lm.eval()
    mine: dict[int, tuple[Tensor, Tensor, int]] = {}
    for number, rows in enumerate(length_batches(batches.lengths(), EVAL_BATCH)):
        if number % team.world == team.rank:
            batch = _to(batches.build(rows, 0, MEASURING), lm.device)
            nll_B, count_B = nll_by_text(lm, batch)
            mine[number] = (nll_B.cpu(), count_B.cpu(), batch.wanted)
    lm.train(was_training)
    every = dict(
        sorted(
            ((n, part[n]) for part in team.all_of(mine) for n in part),
            key=lambda item: item[0],
        )
    )
    nll_N = torch.cat([torch.zeros(0), *(nll_B for nll_B, _, _ in every.values())])
    count_N = torch.cat([torch.zeros(0, dtype=torch.long), *(c for _, c, _ in every.values())])
    wanted = sum(wanted for _, _, wanted in every.values())
    tokens = int(count_N.sum())
    if not tokens:
        return Perplexity(None, 0, None)
    mean, low, high = ratio_interval(nll_N, count_N)
    return Perplexity(math.exp(mean), tokens, 1 - tokens / wanted, math.exp(low), math.exp(high))


def _to(batch: LmBatch, device: torch.device) -> LmBatch:
    moved: Any = [x.to(device) if isinstance(x, Tensor) else x for x in batch]
    return LmBatch(*moved)
