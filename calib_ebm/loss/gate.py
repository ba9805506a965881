"""The noise waits for the labels: its weight follows what the classifier has learned of them.

    learned = 1 - (mean cross-entropy of late) / H
    opening = min(1, max(0, learned) / full_at)

H is the entropy of the training labels' shares: the cross-entropy of a classifier that knows how
frequent each label is and nothing of the texts. `learned` is 0 for it, and 1 for one that makes no
error and no doubt. So a gate that is full at .1 gives the noise no weight until the labels begin to
be learned, all of its weight when a tenth of what there is to know of them is, and less again if
the noise takes the encoder away from them. Weights that would have left a coin leave a classifier
then; they still take something of it (conf/experiment/README.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calib_ebm.errors import InputError

HORIZON = 50
"""Steps over which the cross-entropy is averaged, with weights that decay."""


class LabelGate(nn.Module):
    """Opens as the labels are learned. Shut at first; its state stands in checkpoints.

    Args:
        full_at: share of the labels' entropy, above 0, at which it is open.
        label_count_C: how many training texts have each label.
    """

    mean_ce: Tensor

    def __init__(self, full_at: float, label_count_C: Sequence[int]) -> None:
        super().__init__()
        if not 0 < full_at <= 1:
            raise InputError(
                f"loss.gate is {full_at}.",
                "a number from 0 to 1: the share learned of the labels at which noise has its full "
                "weight; 0 for no gate",
                "Set loss.gate=0.1, or 0.",
            )
        share_C = torch.tensor(label_count_C, dtype=torch.double) / sum(label_count_C)
        self.full_at = full_at
        self.entropy = float(-torch.xlogy(share_C, share_C).sum())
        self.register_buffer("mean_ce", torch.tensor(self.entropy))

    def opening(self) -> Tensor:
        """A scalar from 0, shut, to 1, open; open where all texts have one label.

        >>> gate = LabelGate(0.25, (10, 10))
        >>> gate.opening()
        tensor(0.)
        >>> gate.mean_ce.fill_(gate.entropy * 0.875)
        tensor(0.6065)
        >>> gate.opening()
        tensor(0.5000)
        """
        if self.entropy == 0:
            return torch.ones_like(self.mean_ce)
        learned = 1 - self.mean_ce / self.entropy
        return (learned / self.full_at).clamp(0, 1)

    def complaint(self) -> tuple[str, ...]:
        """A sentence where it is less than half open, which at the end of a training is odd."""
        opening = float(self.opening())
        if opening >= 0.5:
            return ()
        return (
            f"The labels are hardly learned, so that the noise ended with {opening:.0%} of its "
            f"weight (loss.gate={self.full_at:g}): expect no calibration from it. Train for longer "
            "(trainer.max_steps), or faster (optim.lr).",
        )

    def follow(self, step_ce: Tensor) -> None:
        """Move by one step whose mean cross-entropy over all processes, a scalar, was this."""
        self.mean_ce.lerp_(step_ce.to(self.mean_ce), 1 / HORIZON)
