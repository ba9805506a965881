"""Tokens to logits and energies, in one encoder pass."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor, nn

from calib_ebm.energy.heads import Energy
from calib_ebm.shapes import TokenBatch


class Scores(NamedTuple):
    """What the network says of B texts."""

    logits_BC: Tensor
    energy_B: Tensor | None
    """In nats, low where a text looks like data; None without an energy (plain fine-tuning)."""


class EnergyNetwork(nn.Module):
    """A classifier and an energy on the same encoder.

    Args:
        classifier: a transformers model for sequence classification.
        energy: one of `calib_ebm.energy.heads`, or None for plain fine-tuning.
    """

    def __init__(self, classifier: nn.Module, energy: Energy | None) -> None:
        super().__init__()
        self.classifier = classifier
        self.energy = energy
        # BERT's tokenizer gives token types also where the model (DistilBERT) knows none.
        self._takes_types = "token_type_ids" in signature(classifier.forward).parameters

    def forward(self, tokens: TokenBatch, label_B: Tensor | None = None) -> Scores:
        """Logits and energies of B texts.

        Args:
            tokens: padded input; data and noise may stand in it together.
            label_B: for energies that read labels: the label, -1 where it is not to be read.
        """
        return self.score(self.inputs(tokens), label_B)

    def score(self, inputs: Mapping[str, Any], label_B: Tensor | None = None) -> Scores:
        """The same from what the classifier takes, see `inputs`."""
        wants_hidden = self.energy is not None and self.energy.needs_hidden
        output = self.classifier(**inputs, output_hidden_states=wants_hidden)
        if self.energy is None:
            return Scores(output.logits, None)
        hidden_BTH = output.hidden_states[-1] if wants_hidden else None
        return Scores(output.logits, self.energy(output.logits, hidden_BTH, label_B))

    @property
    def encoder(self) -> nn.Module:
        """The classifier without its head."""
        classifier: Any = self.classifier
        return classifier.base_model

    def hidden(self, tokens: TokenBatch, encoder: nn.Module | None = None) -> Tensor:
        """Last hidden states of B texts, (B, T, H), from the encoder alone, or from another's."""
        encoder = self.encoder if encoder is None else encoder
        return encoder(**self.inputs(tokens)).last_hidden_state

    def inputs(self, tokens: TokenBatch) -> dict[str, Tensor]:
        """The arguments of the classifier."""
        inputs = {"input_ids": tokens.input_ids_BT, "attention_mask": tokens.attention_mask_BT}
        if tokens.token_type_ids_BT is not None and self._takes_types:
            inputs["token_type_ids"] = tokens.token_type_ids_BT
        return inputs
