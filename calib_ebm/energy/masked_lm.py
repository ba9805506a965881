"""The head of a masked LM on a classifier's encoder, and the pretrained model that it came from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from calib_ebm.energy.encoder import SMALL
from calib_ebm.errors import InputError
from calib_ebm.hub import must_be_local


class _Given(nn.Module):
    """Stands where a masked LM has its encoder, and hands on hidden states that are there."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)


class MaskedLmHead(nn.Module):
    """What a masked LM does behind its encoder: any architecture's, by its own code.

    Args:
        lm: a transformers masked LM. It loses its encoder, for which the classifier's stands in:
            where the output embeddings are tied to the input embeddings, they are tied to those.
        encoder: the classifier's encoder.
        trained: the checkpoint had this head.
    """

    def __init__(self, lm: Any, encoder: nn.Module, trained: bool) -> None:
        super().__init__()
        self.trained = trained
        setattr(lm, lm.base_model_prefix, encoder)
        lm.tie_weights()
        setattr(lm, lm.base_model_prefix, _Given())
        self.lm = lm

    def forward(self, hidden_NH: Tensor) -> Tensor:
        """Logits over the vocabulary, (N, V), of the encoder's last hidden states of N tokens."""
        return self.lm(inputs_embeds=hidden_NH.unsqueeze(0)).logits.squeeze(0)


class Pretrained:
    """The encoder, and its masked LM's head if there is one, as they are now: frozen copies.

    No module, so that its weights stand in no checkpoint and are trained by nobody: a resumed run
    makes the same copies from the same pretrained weights.
    """

    def __init__(self, encoder: nn.Module, head: MaskedLmHead | None) -> None:
        # In one copy, so that tied weights are copied once.
        copies = copy.deepcopy((encoder, head))
        self.encoder = copies[0].eval().requires_grad_(False)
        self.head = None if copies[1] is None else copies[1].eval().requires_grad_(False)

    def to(self, device: torch.device) -> Pretrained:
        """Move the copies to a device."""
        self.encoder.to(device)
        if self.head is not None:
            self.head.to(device)
        return self


def masked_lm_head(
    name_or_path: str, classifier: nn.Module, options: Mapping[str, Any]
) -> MaskedLmHead:
    """The masked LM's head for a classifier's encoder; a fresh one where the checkpoint has none.

    Args:
        name_or_path: where the classifier's encoder came from.
        classifier: a transformers model for sequence classification.
        options: as for `load_encoder`.

    Raises:
        InputError: when transformers knows no masked LM of this architecture.
    """
    model: Any = classifier
    try:
        if name_or_path == SMALL:
            lm, trained = AutoModelForMaskedLM.from_config(model.config), False
        else:
            lm, trained = _loaded(name_or_path, options)
        return MaskedLmHead(lm, model.base_model, trained)
    # An architecture without a masked LM raises errors of every kind; all mean the same.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"loss=joint_mlm needs a masked LM of {name_or_path!r}, and there is none "
            f"({type(error).__name__}: {cause}).",
            "encoders that transformers also knows as masked LMs (RoBERTa, BERT, DeBERTa ...)",
            "Choose another encoder or another loss.",
        ) from error


def _loaded(name_or_path: str, options: Mapping[str, Any]) -> tuple[Any, bool]:
    safely: dict[str, Any] = {
        "local_files_only": must_be_local(name_or_path),
        "trust_remote_code": False,
    }
    config = AutoConfig.from_pretrained(name_or_path, **safely)
    for key, value in options.items():
        if value is not None and hasattr(config, key):
            setattr(config, key, value)
    lm, found = AutoModelForMaskedLM.from_pretrained(
        name_or_path, config=config, dtype=torch.float32, output_loading_info=True, **safely
    )
    encoder = f"{lm.base_model_prefix}."
    return lm, all(key.startswith(encoder) for key in found["missing_keys"])
