"""The joint loss: a loss of the labels and noise-contrastive estimation of the energy.

    L = L_label + weight * L_NCE

Equation 8 of He et al., EACL 2021, where L_label is the cross-entropy and the weight is 1. Here it
may also rise linearly from 0 over the first part of the training, and it may wait until the labels
begin to be learned (`gate.py`): the NCE gradient can drown that of the labels
(conf/experiment/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.gate import LabelGate
from calib_ebm.loss.labels import Again, CrossEntropy, LabelLoss
from calib_ebm.loss.nce import nce_loss, nce_noise_part


class LossParts(NamedTuple):
    """Scalars: what is minimised, and what it is made of."""

    total: Tensor
    label: Tensor
    """What is minimised for the labels."""
    ce: Tensor
    """The plain cross-entropy, whichever label loss is minimised, so that curves compare."""
    nce: Tensor | None
    """None where there is no energy: plain fine-tuning."""
    further: Mapping[str, Tensor]
    """Values of this label loss alone, of the gate and of further terms, by name."""


class Term(NamedTuple):
    """A further part of what is minimised: weight times value, a scalar."""

    name: str
    weight: float
    value: Tensor


def with_terms(parts: LossParts, terms: Sequence[Term]) -> LossParts:
    """The same loss with further terms.

    >>> one = torch.ones(())
    >>> with_terms(LossParts(one, one, one, None, {}), [Term("tie", 0.5, 4 * one)]).total
    tensor(3.)
    """
    total = parts.total
    for term in terms:
        total = total + term.weight * term.value
    values = {term.name: term.value for term in terms}
    return parts._replace(total=total, further={**parts.further, **values})


class JointLoss(nn.Module):
    """A label loss plus `nce_weight` times the NCE loss.

    Args:
        nce_weight: lambda of the paper, 0 or more. At 0 the energy is measured, but not trained.
        ramp: share of the training over which the weight rises from 0; 0 means the full weight at
            once, as in the paper.
        label: the loss of the labels; None for the cross-entropy, as in the paper.
        gate: what the weight waits for besides; None for nothing, as in the paper.
    """

    def __init__(
        self,
        nce_weight: float = 1.0,
        ramp: float = 0.0,
        label: LabelLoss | None = None,
        gate: LabelGate | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= nce_weight < float("inf"):
            raise InputError(
                f"loss.nce_weight is {nce_weight}.",
                "a number from 0",
                "Set loss.nce_weight=1, the paper's value.",
            )
        if not 0 <= ramp <= 1:
            raise InputError(
                f"loss.ramp is {ramp}.", "a number from 0 to 1", "Set loss.ramp=0, the paper's."
            )
        self.nce_weight = nce_weight
        self.ramp = ramp
        self.label = CrossEntropy() if label is None else label
        self.gate = gate

    def weight_at(self, progress: float | Tensor) -> float | Tensor:
        """The weight when this share of the training is done.

        >>> [JointLoss(2.0, ramp=0.5).weight_at(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 1.0, 2.0, 2.0]
        """
        risen = 1.0 if self.ramp == 0 else progress / self.ramp
        risen = risen.clamp(max=1) if isinstance(risen, Tensor) else min(1.0, risen)
        weight = self.nce_weight * risen
        # A tensor, so that a step waits for no device.
        return weight if self.gate is None else weight * self.gate.opening()

    def forward(
        self,
        logits_BC: Tensor,
        label_B: Tensor,
        energy_data_B: Tensor | None = None,
        energy_noise_SK: Tensor | None = None,
        *,
        progress: float | Tensor = 1.0,
        again: Again | None = None,
    ) -> LossParts:
        """The parts, in nats per text, computed in float32 at least, whatever the precision.

        Args:
            logits_BC: the classifier's logits of the data texts.
            label_B: their labels.
            energy_data_B: their energies; None for plain fine-tuning.
            energy_noise_SK: energies of K noise texts for S of them; None for plain fine-tuning.
            progress: share of the training that is done, for the ramp; a scalar.
            again: for label losses that need the classification head, see `LabelLoss.forward`.
        """
        wide_BC = logits_BC if logits_BC.dtype.itemsize >= 4 else logits_BC.float()
        label, further = self.label(wide_BC, label_B, again)
        ce = label
        if type(self.label) is not CrossEntropy:
            with torch.no_grad():
                ce = cross_entropy(wide_BC, label_B)
        if energy_data_B is None or energy_noise_SK is None:
            return LossParts(label, label, ce, None, further)
        if energy_data_B.dtype.itemsize < 4:
            energy_data_B, energy_noise_SK = energy_data_B.float(), energy_noise_SK.float()
        nce = nce_loss(energy_data_B, energy_noise_SK)
        total = label + self.weight_at(progress) * nce
        if self.gate is not None:
            further = {**further, "gate": self.gate.opening()}
        return LossParts(total, label, ce, nce, further)

    def of_noise(
        self, energy_noise_M: Tensor, texts: int, per_text: int, *, progress: float | Tensor = 1.0
    ) -> Tensor:
        """What M noise texts add to the total, for gradients that are computed part by part.

        Args:
            energy_noise_M: energies of some of the noise texts.
            texts: S, texts of the batch that have noise.
            per_text: K.
            progress: as in `forward`.
        """
        wide_M = energy_noise_M if energy_noise_M.dtype.itemsize >= 4 else energy_noise_M.float()
        return self.weight_at(progress) * nce_noise_part(wide_M, texts, per_text)
