"""Increasing and stepwise functions of one score, and how they are fitted: one class at a time.

    Sigmoid   1 / (1 + exp(-(slope s + offset)))             Platt 1999
    Line      straight pieces between points, level outside   isotonic regression
    Steps     a value for each bin (lo, hi]                   histogram binning, scaling-binning

All are float64 and plain: what a calibrator stores of them is lists of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calib_ebm.calibration.affine import Problem, solve, with_constant
from calib_ebm.calibration.bins import equal_width_edges


@dataclass(frozen=True)
class Sigmoid:
    """A logistic curve over log-odds."""

    slope: float
    offset: float

    def __call__(self, score_N: Tensor) -> Tensor:
        """Probabilities of the scores."""
        return (self.slope * score_N + self.offset).sigmoid()


@dataclass(frozen=True)
class Line:
    """Linear between its points, which increase in x; beyond the ends their values."""

    x_P: Tensor
    y_P: Tensor

    def __call__(self, score_N: Tensor) -> Tensor:
        """The value at each score."""
        if len(self.x_P) == 1:
            return self.y_P.expand(len(score_N)).clone()
        inside_N = score_N.clamp(self.x_P[0], self.x_P[-1])
        right_N = torch.searchsorted(self.x_P, inside_N).clamp(1, len(self.x_P) - 1)
        x0_N, x1_N = self.x_P[right_N - 1], self.x_P[right_N]
        y0_N, y1_N = self.y_P[right_N - 1], self.y_P[right_N]
        # lerp is monotone and meets both ends exactly.
        return torch.lerp(y0_N, y1_N, (inside_N - x0_N) / (x1_N - x0_N))


@dataclass(frozen=True)
class Steps:
    """A value for each bin (lo, hi]; a score below all edges is in the first, above in the last."""

    inner_edges: Tensor
    """The M - 1 edges between the M bins."""
    value_M: Tensor

    def __call__(self, score_N: Tensor) -> Tensor:
        """The value of each score's bin."""
        return self.value_M[torch.searchsorted(self.inner_edges, score_N)]


def fit_sigmoid(score_N: Tensor, outcome_N: Tensor, smoothed: bool) -> Sigmoid:
    """The logistic curve of least NLL.

    Args:
        score_N: log-odds.
        outcome_N: whether the text is of the class.
        smoothed: aim at (N+ + 1) / (N+ + 2) and 1 / (N- + 2) in place of 1 and 0, as Platt does:
            the best curve is then finite also where a threshold tells the classes apart.
    """
    positive_N = outcome_N.double()
    positives = float(positive_N.sum())
    high, low = 1.0, 0.0
    if smoothed:
        high = (positives + 1) / (positives + 2)
        low = 1 / (len(outcome_N) - positives + 2)
    target_N = low + (high - low) * positive_N
    free_CD = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    # Log-odds may be a hundred: in units of their own size the problem is well conditioned.
    size = max(float(score_N.square().mean().sqrt()), 1e-12)
    problem = Problem(
        with_constant(score_N[:, None] / size),
        torch.stack((1 - target_N, target_N), dim=1),
        torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64),
        free_CD,
        (0.0 if smoothed else 1e-9) * free_CD,
    )
    weight_CD, _ = solve(problem)
    return Sigmoid(float(weight_CD[1, 0]) / size, float(weight_CD[1, 1]))


def fit_isotonic(score_N: Tensor, outcome_N: Tensor) -> Line:
    """The non-decreasing function of least squares, by pooling adjacent violators.

    Equal scores are one point with the mean of their outcomes; between points it is linear. Its
    points are the ends of the pooled blocks.
    """
    x_U, group_N, count_U = score_N.unique(return_inverse=True, return_counts=True)
    total_U = torch.zeros_like(x_U).index_add_(0, group_N, outcome_N.double())
    blocks: list[tuple[float, float, int]] = []  # sum of outcomes, texts, index of the last point
    for last, (total, count) in enumerate(zip(total_U.tolist(), count_U.tolist(), strict=True)):
        texts = float(count)
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / texts:
            before = blocks.pop()
            total, texts = total + before[0], texts + before[1]
        blocks.append((total, texts, last))
    ends: list[int] = []
    values: list[float] = []
    first = 0
    for total, texts, last in blocks:
        for end in dict.fromkeys((first, last)):  # a block of one point has one end
            ends.append(end)
            values.append(total / texts)
        first = last + 1
    return Line(x_U[torch.tensor(ends)], torch.tensor(values, dtype=torch.float64))


def equal_mass_inner_edges(score_N: Tensor, bins: int) -> Tensor:
    """Edges midway between M parts of as equal counts as can be; equal scores share a bin.

    With fewer scores than bins each has its own. As numpy's array_split: the first parts are the
    larger ones.
    """
    ordered_N = score_N.sort().values
    parts = torch.tensor_split(ordered_N, min(bins, len(ordered_N)))
    middles = [(parts[m - 1][-1] + parts[m][0]) / 2 for m in range(1, len(parts))]
    if not middles:
        return score_N.new_zeros(0)
    edges = torch.stack(middles).unique()
    return edges[edges < ordered_N[-1]]  # above the largest score there is nothing


def equal_width_inner_edges(bins: int) -> Tensor:
    """The edges 1/M ... (M-1)/M."""
    return equal_width_edges(bins, torch.zeros(1, dtype=torch.float64))[1:-1].contiguous()


def bin_means(score_N: Tensor, value_N: Tensor, inner_edges: Tensor) -> Steps:
    """The mean value in each bin; of an empty one its middle between 0 and 1."""
    bins = len(inner_edges) + 1
    bin_N = torch.searchsorted(inner_edges, score_N)
    count_M = bin_N.bincount(minlength=bins).double()
    total_M = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_N, value_N.double())
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    edges_M1 = torch.cat((ends[:1], inner_edges, ends[1:]))
    middle_M = (edges_M1[:-1] + edges_M1[1:]) / 2
    return Steps(inner_edges, torch.where(count_M > 0, total_M / count_M.clamp(min=1), middle_M))
