"""The interval of a share of few texts."""

from __future__ import annotations

import numpy as np

from calib_ebm.report.columns import Floats
from calib_ebm.report.numbers import StoredEstimate

NORMAL = 1.959964
"""Quantile of a standard normal, two-sided at 95%."""


def share_text(hits: int, many: int) -> str:
    """A share with Wilson's interval.

    >>> share_text(3, 10)
    '30.0% [10.8, 60.3]'
    """
    share = np.asarray([hits / many if many else 0.0])
    low, high = wilson(share, np.asarray([float(many)]))
    return StoredEstimate(float(share[0]), float(low[0]), float(high[0])).text("%")


def wilson(share_M: Floats, count_M: Floats) -> tuple[Floats, Floats]:
    """Wilson's (1927) 95% interval of shares of so many texts each; 0 to 1 where there are none."""
    many_M = np.maximum(count_M, 1e-12)
    square_M = NORMAL**2 / many_M
    centre_M = (share_M + square_M / 2) / (1 + square_M)
    half_M = np.sqrt(square_M * (share_M * (1 - share_M) + square_M / 4)) / (1 + square_M)
    return np.maximum(centre_M - half_M, 0.0), np.minimum(centre_M + half_M, 1.0)
