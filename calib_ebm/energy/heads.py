"""The energies: one number per text, low where the text looks like data.

A classifier f with logits f(x)[y] already defines an energy of (x, y), -f(x)[y]; summing or
maximising over y gives an energy of x alone without a new parameter (Grathwohl et al., ICLR 2020;
He et al., EACL 2021, section 3).  Each class below is one such choice and says what it needs.

    scalar        a head of its own on the first token's hidden state
    hidden        -logsumexp_y f(x)[y]
    sharp_hidden  -max_y f(x)[y]

so that sharp - log C <= hidden <= sharp.  The others are diagnostics: they answer "what if", and
are not recommended for anything else.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from calib_ebm.errors import InputError


class Energy(nn.Module):
    """What all energies share: from logits, hidden states and labels to one energy per text.

    Attributes:
        needs_hidden: the last hidden states of the encoder must be given.
        reads_labels: whose labels the training hands in: any of "data" and "noise".
        is_pure: nothing is asked of the host: a step with it can be recorded and replayed.
    """

    needs_hidden: ClassVar[bool] = False
    reads_labels: ClassVar[frozenset[str]] = frozenset()
    is_pure: ClassVar[bool] = True

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """Energies of B texts, in nats; the lower, the more a text looks like data.

        Args:
            logits_BC: the classifier's logits.
            hidden_BTH: last hidden states, where `needs_hidden`.
            label_B: labels where known, -1 elsewhere; None when no label is known.
        """
        raise NotImplementedError  # an abstract method: every entry of ENERGIES defines it


class ScalarEnergy(Energy):
    """A head of its own: dropout, dense H to H, tanh, dropout, dense H to 1, on the first token.

    Source: the reference implementation of He et al. (2021), which shares only the encoder.
    """

    needs_hidden = True

    def __init__(self, hidden_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, 1),
        )

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        assert hidden_BTH is not None, "ScalarEnergy.needs_hidden"
        return self.head(hidden_BTH[:, 0]).squeeze(-1)


class HiddenEnergy(Energy):
    """-logsumexp over the classes: the energy of x with y summed out.

    >>> HiddenEnergy()(torch.tensor([[2.0, -1.0, 0.5]]))
    tensor([-2.2413])
    """

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        return -logits_BC.logsumexp(dim=-1)


class SharpHiddenEnergy(Energy):
    """-max over the classes: the energy of x with its likeliest y.

    >>> SharpHiddenEnergy()(torch.tensor([[2.0, -1.0, 0.5]]))
    tensor([-2.])
    """

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        return -logits_BC.amax(dim=-1)


class LabelledEnergy(Energy):
    """-f(x)[y] with the known label, for data and noise; the hidden energy where no label is known.

    A noise text's label is the one its noise model drew, else the label of the text it came from.
    """

    reads_labels = frozenset({"data", "noise"})

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        hidden_B = -logits_BC.logsumexp(dim=-1)
        if label_B is None:
            return hidden_B
        picked_B = -logits_BC.gather(-1, label_B.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return torch.where(label_B >= 0, picked_B, hidden_B)


class NoiseLabelledEnergy(LabelledEnergy):
    """As `LabelledEnergy`, but only the labels of noise are read; data get the hidden energy."""

    reads_labels = frozenset({"noise"})


class SelfSampledEnergy(Energy):
    """-f(x)[y'] with y' drawn from the classifier's own softmax: hidden energy and sampling noise.

    Random also in evaluation; the draw takes no gradient.
    """

    is_pure = False  # torch checks on the host what it draws from

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        # Logits that are not finite must reach the loss, which names the step.
        probs_BC = logits_BC.detach().float().softmax(dim=-1).nan_to_num(nan=1.0)
        drawn_B1 = torch.multinomial(probs_BC, 1)
        return -logits_BC.gather(-1, drawn_B1).squeeze(-1)


class FlippedScalarEnergy(ScalarEnergy):
    """The scalar energy with its sign turned: for a free head nothing but another start."""

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        return -super().forward(logits_BC, hidden_BTH, label_B)


class FlippedHiddenEnergy(HiddenEnergy):
    """+logsumexp over the classes: on data the logits must shrink, against the classifier."""

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        return -super().forward(logits_BC, hidden_BTH, label_B)


class FlippedSharpHiddenEnergy(SharpHiddenEnergy):
    """+max over the classes; see `FlippedHiddenEnergy`."""

    def forward(
        self, logits_BC: Tensor, hidden_BTH: Tensor | None = None, label_B: Tensor | None = None
    ) -> Tensor:
        """See `Energy.forward`."""
        return -super().forward(logits_BC, hidden_BTH, label_B)


ENERGIES: dict[str, type[Energy]] = {
    "scalar": ScalarEnergy,
    "hidden": HiddenEnergy,
    "sharp_hidden": SharpHiddenEnergy,
    "labelled": LabelledEnergy,
    "noise_labelled": NoiseLabelledEnergy,
    "self_sampled": SelfSampledEnergy,
    "scalar_flipped": FlippedScalarEnergy,
    "hidden_flipped": FlippedHiddenEnergy,
    "sharp_hidden_flipped": FlippedSharpHiddenEnergy,
}
"""Every energy by the name it has in `conf/energy`."""


def build_energy(name: str, hidden_size: int, dropout: float = 0.1) -> Energy | None:
    """The energy of a name; None for "none", plain fine-tuning.

    Args:
        name: a key of `ENERGIES`, or "none".
        hidden_size: H of the encoder, for heads of their own.
        dropout: of heads of their own.

    Raises:
        InputError: for another name.
    """
    if name == "none":
        return None
    if name not in ENERGIES:
        raise InputError(
            f"energy is {name!r}.",
            "none, " + ", ".join(ENERGIES),
            "Choose one: energy=sharp_hidden.",
        )
    kind = ENERGIES[name]
    return kind(hidden_size, dropout) if issubclass(kind, ScalarEnergy) else kind()
