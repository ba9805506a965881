"""The estimate of P_N around masked texts, against the sum over all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch

from calib_ebm.noise.estimate import estimate_log_prob
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import collapse
from calib_ebm.noise.modes import Lengths, Masked
from calib_ebm.noise.sampler import Sampler
from calib_ebm.shapes import Encoded

RATE = 0.4


def exact(sampler: Sampler, texts: list[Encoded], targets: list[Encoded]) -> torch.Tensor:
    """The mean over all texts and all patterns of masks."""
    total = torch.zeros(len(targets), dtype=torch.double)
    symbols = sampler.lm.vocabulary.symbols
    for text in texts:
        ids = sampler.lm.vocabulary.to_lm(text.ids_a)
        for masked in product([False, True], repeat=len(ids)):
            prefix = collapse(ids, np.asarray(masked), symbols.mask)
            share = RATE ** sum(masked) * (1 - RATE) ** (len(ids) - sum(masked)) / len(texts)
            total += share * sampler.log_prob(targets, [prefix] * len(targets)).exp()
    return total.log()


def test_it_comes_to_the_sum_over_all_masked_texts(
    tiny_lm: Callable[..., NoiseLm], tokenizer: Any
) -> None:
    texts = [Encoded([3, 4, 5], None, 0), Encoded([5, 3], None, 1), Encoded([4, 4, 3], None, 0)]
    targets = [Encoded([3, 4, 5], None, -1), Encoded([5], None, -1), Encoded([4, 3], None, -1)]
    lm = tiny_lm(texts, seed=1)
    sampler = Sampler(lm, Masked(RATE), Sampling(), texts, tokenizer, Lengths(8, 8), seed=3)
    true = exact(sampler, texts, targets)
    estimate = estimate_log_prob(sampler, targets, 3000)
    assert ((estimate.log_prob_N - true).abs() <= 4 * estimate.error_N + 1e-9).all()
    assert (estimate.error_N < 0.1).all()
    # The control: one prefix instead of all is something else.
    one = sampler.log_prob(targets, [sampler.prefix(0)] * len(targets))
    assert ((one - true).abs() > 4 * estimate.error_N).any()
    fewer = estimate_log_prob(sampler, targets, 300)
    assert (fewer.error_N > 2 * estimate.error_N).all()
