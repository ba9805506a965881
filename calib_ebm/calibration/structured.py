"""Matrix scaling that is held back where there are few texts: structured, and Dirichlet."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from calib_ebm.calibration.scaling import Notes, Scaling, diagonal_and_bias, with_bias


class StructuredVector(Scaling):
    """Vector scaling with ridges of C / n: few texts leave it close to temperature scaling.

    As in the authors' package, q is the temperature-scaled softmax of n texts mixed with one text's
    worth of the uniform distribution, which keeps its logarithm from running away.

    Args:
        intercept: factor of the ridge on biases.
        diagonal: factor of the ridge on a slope's distance from the temperature's.
    """

    name = "structured_vector"
    called = "structured vector scaling"
    of_log_probs = True
    options: ClassVar[tuple[str, ...]] = ("intercept", "diagonal")

    def __init__(self, intercept: float = 1.0, diagonal: float = 1.0) -> None:
        self.intercept = intercept
        self.diagonal = diagonal
        super().__init__()

    def _features(self, logits_NC: Tensor) -> Tensor:
        classes = logits_NC.shape[1]
        probs_NC = (logits_NC * self._scale).softmax(dim=1)
        return ((self._texts * probs_NC + 1 / classes) / (self._texts + 1)).log()

    def _free(self, classes: int) -> Tensor:
        return diagonal_and_bias(classes)

    def _ridge(self, texts: int, classes: int) -> Tensor:
        weight_CC = self.diagonal * classes / texts * torch.eye(classes, dtype=torch.float64)
        return with_bias(weight_CC, self.intercept * classes / texts)


class StructuredMatrix(StructuredVector):
    """Matrix scaling with ridges of C / n on diagonal and bias, C (C - 1) / n off the diagonal.

    Args:
        intercept: as of `StructuredVector`.
        diagonal: as of `StructuredVector`.
        off_diagonal: factor of the ridge on all other entries.
    """

    name = "structured_matrix"
    called = "structured matrix scaling"
    options = ("intercept", "diagonal", "off_diagonal")

    def __init__(
        self, intercept: float = 1.0, diagonal: float = 1.0, off_diagonal: float = 1.0
    ) -> None:
        self.off_diagonal = off_diagonal
        super().__init__(intercept, diagonal)

    def _free(self, classes: int) -> Tensor:
        return torch.ones(classes, classes + 1, dtype=torch.float64)

    def _ridge(self, texts: int, classes: int) -> Tensor:
        off_CC = 1 - torch.eye(classes, dtype=torch.float64)
        further_CC = self.off_diagonal * classes * (classes - 1) / texts * off_CC
        return super()._ridge(texts, classes) + with_bias(further_CC, 0.0)


class Dirichlet(Scaling):
    """A full matrix on log-probabilities, with off-diagonal and intercept regularisation (ODIR).

        lambda / (C (C - 1)) sum_{c != d} A_cd^2  +  mu / C sum_c b_c^2

    Args:
        off_diagonal: lambda.
        intercept: mu.
        l2: on every entry's distance from the identity, the paper's other regulariser but for its
            centre, zero. So small that it is felt only where the labels set no bound.
    """

    name = "dirichlet"
    called = "Dirichlet calibration"
    of_log_probs = True
    options = ("off_diagonal", "intercept", "l2")

    def __init__(
        self, off_diagonal: float = 0.01, intercept: float = 0.01, l2: float = 1e-6
    ) -> None:
        self.off_diagonal = off_diagonal
        self.intercept = intercept
        self.l2 = l2
        super().__init__()

    def _fit_scale(self, logits_NC: Tensor, labels_N: Tensor) -> tuple[float, Notes]:
        return 1.0, ()

    def _features(self, logits_NC: Tensor) -> Tensor:
        return logits_NC.log_softmax(dim=1)

    def _free(self, classes: int) -> Tensor:
        return torch.ones(classes, classes + 1, dtype=torch.float64)

    def _ridge(self, texts: int, classes: int) -> Tensor:
        off_CC = 1 - torch.eye(classes, dtype=torch.float64)
        odir_CC = self.off_diagonal / (classes * (classes - 1)) * off_CC
        return self.l2 + with_bias(odir_CC, self.intercept / classes)
