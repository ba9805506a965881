"""Mixup of pooled representations: half-way between two texts lies half of each label.

    h = m h_i + (1 - m) h_j,    L = -m log p_i(h) - (1 - m) log p_j(h),    m ~ Beta(alpha, alpha)

j is a random partner of each text in the batch and p_i the probability of text i's label. Words
cannot be mixed, so the vectors that the classification head reads are (Verma et al., ICML 2019,
manifold mixup; inputs: Zhang et al., ICLR 2018). The energy is that of the texts as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import cross_entropy

from calib_ebm.loss.labels import Again, LabelLoss, LabelParts, required


def mixup_loss(mixed_BC: Tensor, label_B: Tensor, partner_B: Tensor, share: float) -> Tensor:
    """Cross-entropy of mixed texts, in nats: `share` of their own label, the rest their partner's.

    Args:
        mixed_BC: logits of the mixed texts.
        label_B: labels of the texts.
        partner_B: each one's partner, by its place in the batch.
        share: m, of the text itself.

    >>> logits = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()
    >>> mixup_loss(logits, torch.tensor([0, 1]), torch.tensor([1, 0]), 0.5)  # (log 4 + log 4/3) / 2
    tensor(0.8370)
    """
    own = cross_entropy(mixed_BC, label_B)
    return share * own + (1 - share) * cross_entropy(mixed_BC, label_B[partner_B])


class Mixup(LabelLoss):
    """Mixes pooled representations in training; the cross-entropy elsewhere.

    Args:
        alpha: of the Beta distribution of m, from 0. Draws come from torch's random numbers, which
            the training seeds at each step.
    """

    settings = ("alpha",)
    needs_head = True
    is_pure = False

    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__()
        self.alpha = required("alpha", alpha, 0, float("inf"), 0.2)

    def forward(self, logits_BC: Tensor, label_B: Tensor, again: Again | None = None) -> LabelParts:
        """See `LabelLoss.forward`."""
        if not self.training or self.alpha == 0:
            return LabelParts(cross_entropy(logits_BC, label_B), {})
        assert again is not None, "Mixup.needs_head"
        share = Beta(self.alpha, self.alpha).sample().item()
        partner_B = torch.randperm(len(label_B)).to(label_B.device)
        mixed_BC = again(lambda pooled: share * pooled + (1 - share) * pooled[partner_B])
        wide_BC = mixed_BC.to(logits_BC.dtype)
        return LabelParts(mixup_loss(wide_BC, label_B, partner_B, share), {})
