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
_NEWTON_STEPS = 20
_NEWTON_ENTRIES = 2000
"""Free entries up to which second derivatives are affordable (32 MB)."""


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

    def hessian(self, weight_CD: Tensor) -> Tensor:
        """Second derivatives by the F free entries, (F, F), in the order of the flattened W."""
        probs_NC = (self.features_ND @ weight_CD.T).softmax(dim=1)
        (texts, classes), size = probs_NC.shape, weight_CD.numel()
        whole_CDCD = weight_CD.new_zeros(*weight_CD.shape, *weight_CD.shape)
        # A pair of classes at a time: all at once would take the memory of C * C * D for each text.
        for c in range(classes):
            for e in range(classes):
                spread_N1 = probs_NC[:, c, None] * (float(c == e) - probs_NC[:, e, None])
                whole_CDCD[c, :, e] = self.features_ND.T @ (spread_N1 * self.features_ND) / texts
        whole = whole_CDCD.view(size, size) + torch.diag(2 * self.ridge_CD.flatten())
        free = self.free_CD.flatten().bool()
        return whole[free][:, free]


def solve(problem: Problem) -> tuple[Tensor, bool]:
    """The minimum, C by D, and whether the gradient vanishes there to `GRADIENT_TOLERANCE`.

    By L-BFGS with a strong Wolfe line search from torch, on an analytic gradient. Where classes are
    nearly told apart without error, its line search ends when the loss no longer changes in
    float64, and the gradient is not yet gone: Newton steps, which look at no loss, follow.
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
    weight_CD = weight_CD.detach()
    if _steepest(problem, weight_CD) > GRADIENT_TOLERANCE:
        weight_CD = _polished(problem, weight_CD)
    return weight_CD, _steepest(problem, weight_CD) <= GRADIENT_TOLERANCE


def _steepest(problem: Problem, weight_CD: Tensor) -> float:
    return float(problem.loss_and_gradient(weight_CD)[1].abs().max())


def _polished(problem: Problem, weight_CD: Tensor) -> Tensor:
    """Newton steps, each halved until the gradient shrinks; as it was where there are too many."""
    free_CD = problem.free_CD.bool()
    if int(free_CD.sum()) > _NEWTON_ENTRIES:
        return weight_CD
    for _ in range(_NEWTON_STEPS):
        before = _steepest(problem, weight_CD)
        if before <= GRADIENT_TOLERANCE / 100:
            break
        gradient_F = problem.loss_and_gradient(weight_CD)[1][free_CD]
        step_CD = torch.zeros_like(weight_CD)
        step_CD[free_CD], _ = torch.linalg.solve_ex(problem.hessian(weight_CD), gradient_F)
        tried = (weight_CD - step_CD / 2**halvings for halvings in range(10))
        better = next((each for each in tried if _steepest(problem, each) < before), None)
        if better is None:
            break
        weight_CD = better
    return weight_CD


def one_hot_targets(labels_N: Tensor, classes: int) -> Tensor:
    """Labels as rows of float64 ones and zeros."""
    return torch.nn.functional.one_hot(labels_N.long(), classes).double()


def with_constant(values_ND: Tensor) -> Tensor:
    """A column of ones behind the features: its weights are the biases."""
    return torch.cat((values_ND, torch.ones_like(values_ND[:, :1])), dim=1)
