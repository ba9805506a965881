"""Posterior-calibrated training: probabilities are drawn towards how often they come true.

    L = cross-entropy + weight * distance(p, q),    q_bc = table[c, bin(p_bc)]

The table holds, for each class and each of M equal bins of its probability, how often texts whose
probability lies in the bin are of the class. It is made from training texts every so often
(learn/poscal.py) and takes no gradient. Source: Jung et al., ACL 2020.

    kl      mean over texts of sum_c q log(q / p); where q = 0 nothing is asked of p
    mse     mean over texts of sum_c (p - q)^2
    rmse    its root

q is looked up class by class, so it need not sum to one over classes; the first is then no
divergence in the strict sense and may fall below 0. Its slope in the logits is p sum_c(q) - q.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.labels import Again, LabelLoss, LabelParts, required

DISTANCES = ("kl", "mse", "rmse")
TABLES = ("recent", "rescored")


def bins_of(probs_BC: Tensor, bins: int) -> Tensor:
    """The bin of each probability: [m / M, (m + 1) / M), the last with its right end.

    >>> bins_of(torch.tensor([0.0, 0.05, 0.5, 0.999, 1.0]), 20)
    tensor([ 0,  1, 10, 19, 19])
    """
    # A probability that is not finite must reach the loss, which names the step.
    return (probs_BC.nan_to_num(nan=0.0) * bins).long().clamp(0, bins - 1)


def bin_counts(probs_BC: Tensor, label_B: Tensor, bins: int) -> Tensor:
    """How many texts lie in each bin of each class, and how many of them are of the class.

    Returns:
        whole numbers of shape (2, C, M); those of parts of a set add up.

    >>> bin_counts(torch.tensor([[0.2, 0.8], [0.4, 0.6]]), torch.tensor([1, 0]), 2)[1]
    tensor([[1, 0],
            [0, 1]])
    """
    classes = probs_BC.shape[1]
    place_BC = bins_of(probs_BC, bins) + bins * torch.arange(classes, device=probs_BC.device)
    hit_BC = torch.nn.functional.one_hot(label_B, classes)
    counts = torch.zeros(2, classes * bins, dtype=torch.long, device=probs_BC.device)
    counts[0].index_add_(0, place_BC.flatten(), torch.ones_like(hit_BC).flatten())
    counts[1].index_add_(0, place_BC.flatten(), hit_BC.flatten())
    return counts.view(2, classes, bins)


def table_of(counts_2CM: Tensor) -> Tensor:
    """Frequencies (C, M) from counts; 0 in a bin without texts.

    >>> table_of(torch.tensor([[[4, 0]], [[1, 0]]]))
    tensor([[0.2500, 0.0000]])
    """
    return counts_2CM[1] / counts_2CM[0].clamp(min=1)


def looked_up(table_CM: Tensor, probs_BC: Tensor) -> Tensor:
    """What the table holds for each probability, (B, C); no gradient passes."""
    classes, bins = table_CM.shape
    class_C = torch.arange(classes, device=table_CM.device)
    return table_CM[class_C, bins_of(probs_BC.detach(), bins)].detach()


def poscal_distance(logits_BC: Tensor, target_BC: Tensor, distance: str) -> Tensor:
    """The distance between the softmax of B logits and what it should be, see above.

    >>> from math import log
    >>> logits, target = torch.tensor([[0.0, log(3)]]), torch.tensor([[0.5, 0.5]])
    >>> poscal_distance(logits, target, "mse")  # 2 * 0.25^2
    tensor(0.1250)
    """
    log_p_BC = logits_BC.log_softmax(dim=-1)
    target_BC = target_BC.to(log_p_BC.dtype)
    if distance == "kl":
        return (torch.xlogy(target_BC, target_BC) - target_BC * log_p_BC).sum(dim=-1).mean()
    squared = (log_p_BC.exp() - target_BC).square().sum(dim=-1).mean()
    if distance == "mse":
        return squared
    # A root has no slope at 0, which a saturated softmax and a table of ones and zeros do meet.
    there = squared > 0
    return torch.where(there, torch.where(there, squared, 1.0).sqrt(), 0.0)


class PosCal(LabelLoss):
    """Cross-entropy plus `poscal_weight` times the distance to a table of frequencies.

    Until the table is there, the distance is 0. In training mode each pass leaves the counts of its
    texts in `batch_counts`, from which a table can be made.

    Args:
        classes: C.
        poscal_weight: lambda of the paper, from 0.
        distance: one of `DISTANCES`.
        bins: M.
        refreshes_per_epoch: how often the table is made anew.
        table: one of `TABLES`: from which probabilities.
    """

    settings = ("poscal_weight", "distance", "bins", "refreshes_per_epoch", "table")
    needs_classes = True
    is_pure = False
    table_CM: Tensor
    there: Tensor
    seen_2CM: Tensor

    def __init__(
        self,
        classes: int,
        poscal_weight: float = 1.0,
        distance: str = "kl",
        bins: int = 20,
        refreshes_per_epoch: float = 10,
        table: str = "recent",
    ) -> None:
        super().__init__()
        self.poscal_weight = required("poscal_weight", poscal_weight, 0, float("inf"), 1)
        for name, value, allowed in (("distance", distance, DISTANCES), ("table", table, TABLES)):
            if value not in allowed:
                first, given = allowed[0], f"loss.{name} is {value!r}."
                raise InputError(given, ", ".join(allowed), f"Set loss.{name}={first}.")
        if bins < 1 or bins != int(bins):
            raise InputError(f"loss.bins is {bins}.", "a whole number from 1", "Set loss.bins=20.")
        if not 0 < refreshes_per_epoch < float("inf"):
            raise InputError(
                f"loss.refreshes_per_epoch is {refreshes_per_epoch}.",
                "a number above 0",
                "Set loss.refreshes_per_epoch=10.",
            )
        self.distance, self.bins, self.table = distance, int(bins), table
        self.refreshes_per_epoch = refreshes_per_epoch
        self.batch_counts: Tensor | None = None
        # Buffers, so that a checkpoint holds them and a resumed run goes on with the same table.
        self.register_buffer("table_CM", torch.zeros(classes, self.bins))
        self.register_buffer("there", torch.zeros(()))
        self.register_buffer("seen_2CM", torch.zeros(2, classes, self.bins, dtype=torch.long))

    def refresh(self, counts_2CM: Tensor) -> None:
        """Make the table from these counts."""
        self.table_CM.copy_(table_of(counts_2CM))
        self.there.fill_(1.0)

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """See `LabelLoss.forward`."""
        probs_BC = logits_BC.detach().softmax(dim=-1)
        if self.training:
            self.batch_counts = bin_counts(probs_BC, label_B, self.bins)
        target_BC = looked_up(self.table_CM, probs_BC)
        distance = self.there * poscal_distance(logits_BC, target_BC, self.distance)
        total = cross_entropy(logits_BC, label_B) + self.poscal_weight * distance
        return LabelParts(total, {"poscal": distance})
