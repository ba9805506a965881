"""log P_N of a text where noise is drawn around other texts: a mean over what it is drawn around.

With noise=masked or half, P_N(x) is the mean of P_N(x | m) over masked texts m. The sum has no end,
but its mean over many drawn m converges; how near it is, is estimated with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.noise.sampler import Sampler
from calib_ebm.shapes import Encoded


class LogProbEstimate(NamedTuple):
    """Of N texts, in nats, float64."""

    log_prob_N: Tensor
    error_N: Tensor
    """Standard error of `log_prob_N` by the delta method; too small where few prefixes count."""


def estimate_log_prob(sampler: Sampler, texts: Sequence[Encoded], prefixes: int) -> LogProbEstimate:
    """Estimate log P_N of texts from the first prefixes that noise is drawn around.

    Takes as many passes of the noise model as there are texts times different prefixes.

    Args:
        sampler: of a mode with prefixes; its texts are those that the prefixes are made of.
        texts: noise or data.
        prefixes: how many, the more the better.
    """
    counts = Counter(tuple(sampler.prefix(number)) for number in range(prefixes))
    each = [list(prefix) for prefix in counts]
    weight_U = torch.tensor(list(counts.values()), dtype=torch.double) / prefixes
    means, errors = [], []
    for text in texts:
        log_prob_U = sampler.log_prob([text] * len(each), each)
        log_mean = (log_prob_U + weight_U.log()).logsumexp(dim=0)
        # Relative to the mean, so that nothing underflows.
        ratio_U = (log_prob_U - log_mean).exp()
        variance = float((weight_U * ratio_U.square()).sum()) - 1.0
        means.append(float(log_mean))
        errors.append(math.sqrt(max(variance, 0.0) / prefixes))
    return LogProbEstimate(
        torch.tensor(means, dtype=torch.double), torch.tensor(errors, dtype=torch.double)
    )
