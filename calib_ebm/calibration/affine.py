"""Multinomial logistic regression on logits: one convex problem behind most of the calibrators.

    minimise over W    mean_n -sum_c t_nc log softmax(W x_n)_c  +  sum_cd ridge_cd (W_cd - V_cd)^2

with targets t_n (one-hot, or smoothed) and some entries of W held at their start V. What differs
between vector, matrix, structured, Dirichlet and Platt scaling is only x, the entries that are free
and the ridge. Convex, so that the one thing to check of a solution is its gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GRADIENT_TOLERANCE = 1e-7
"""Of the largest entry of the gradient, in nats per unit of a weight."""
_STEPS = 5000


class Problem(NamedTuple):
    """The regression of the module's docstring, all in float64; D features of N texts."""

    features_ND: Tensor
    targets_NC: Tensor
    start_CD: Tensor
    """Where the search starts, and what the ridge pulls towards."""
    free_CD: Tensor
    """One where an entry is fitted, zero where it stays at its start."""
    ridge_CD: Tensor

    def loss_and_gradient(self, weight_CD: Tensor) -> tuple[Tensor, Tensor]:
        """The objective, and its gradient by the free entries."""
        log_probs_NC = (self.features_ND @ weight_CD.T).log_softmax(dim=1)
        texts = len(self.features_ND)
        away_CD = weight_CD - self.start_CD
        loss = -(self.targets_NC * log_probs_NC).sum() / texts
        loss = loss + (self.ridge_CD * away_CD.square()).sum()
        # Targets sum to one, so that the softmax's normaliser has the weight one.
        error_NC = log_probs_NC.exp() - self.targets_NC
        gradient_CD = error_NC.T @ self.features_ND / texts + 2 * self.ridge_CD * away_CD
        return loss, gradient_CD * self.free_CD


def solve(problem: Problem) -> tuple[Tensor, bool]:
    """The minimum, C by D, and whether the gradient vanishes there to `GRADIENT_TOLERANCE`.

    By L-BFGS with a strong Wolfe line search from torch, on an analytic gradient.
    """
    weight_CD = problem.start_CD.clone()
    optimiser = torch.optim.LBFGS(
        [weight_CD],
        max_iter=_STEPS,
        max_eval=2 * _STEPS,
        history_size=50,
        tolerance_grad=GRADIENT_TOLERANCE / 100,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        loss, weight_CD.grad = problem.loss_and_gradient(weight_CD)
        return float(loss)

    optimiser.step(closure)
    _, gradient_CD = problem.loss_and_gradient(weight_CD)
    return weight_CD.detach(), bool(gradient_CD.abs().max() <= GRADIENT_TOLERANCE)


def one_hot_targets(labels_N: Tensor, classes: int) -> Tensor:
    """Labels as rows of float64 ones and zeros."""
    return torch.nn.functional.one_hot(labels_N.long(), classes).double()


def with_constant(values_ND: Tensor) -> Tensor:
    """A column of ones behind the features: its weights are the biases."""
    return torch.cat((values_ND, torch.ones_like(values_ND[:, :1])), dim=1)
