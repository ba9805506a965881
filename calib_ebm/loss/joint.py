"""The joint loss: cross-entropy of the label and noise-contrastive estimation of the energy.

    L = L_CE + weight * L_NCE

Equation 8 of He et al., EACL 2021, where the weight is 1.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.nce import nce_loss


class LossParts(NamedTuple):
    """Scalars: what is minimised, and what it is made of."""

    total: Tensor
    ce: Tensor
    nce: Tensor | None
    """None where there is no energy: plain fine-tuning."""


class JointLoss(nn.Module):
    """Cross-entropy plus `nce_weight` times the NCE loss.

    Args:
        nce_weight: lambda of the paper, 0 or more. At 0 the energy is measured, but not trained.
    """

    def __init__(self, nce_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= nce_weight < float("inf"):
            raise InputError(
                f"loss.nce_weight is {nce_weight}.",
                "a number from 0",
                "Set loss.nce_weight=1, the paper's value.",
            )
        self.nce_weight = nce_weight

    def forward(
        self,
        logits_BC: Tensor,
        label_B: Tensor,
        energy_data_B: Tensor | None = None,
        energy_noise_BK: Tensor | None = None,
    ) -> LossParts:
        """The parts, in nats per text, computed in float32 at least, whatever the precision.

        Args:
            logits_BC: the classifier's logits of the data texts.
            label_B: their labels.
            energy_data_B: their energies; None for plain fine-tuning.
            energy_noise_BK: energies of the K noise texts of each; None for plain fine-tuning.
        """
        wide_BC = logits_BC if logits_BC.dtype.itemsize >= 4 else logits_BC.float()
        ce = cross_entropy(wide_BC, label_B)
        if energy_data_B is None or energy_noise_BK is None:
            return LossParts(ce, ce, None)
        if energy_data_B.dtype.itemsize < 4:
            energy_data_B, energy_noise_BK = energy_data_B.float(), energy_noise_BK.float()
        nce = nce_loss(energy_data_B, energy_noise_BK)
        return LossParts(ce + self.nce_weight * nce, ce, nce)
