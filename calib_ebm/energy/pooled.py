"""The last part of a classifier, by itself: from what it reads to the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from calib_ebm.errors import InputError


class PooledHead:
    """The part of a classifier whose output are the logits, and what it read in the last pass.

    For RoBERTa, ELECTRA and MPNet this is the whole head, which reads hidden states; for BERT,
    DistilBERT and DeBERTa the last linear layer, which reads the pooled vector.

    Args:
        classifier: a transformers model for sequence classification.

    Raises:
        InputError: when no such part can be found.
    """

    def __init__(self, classifier: nn.Module) -> None:
        self.head = find_head(classifier)
        self._read: Tensor | None = None
        self.head.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._read = inputs[0]

    def again(self, size: int, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits of the first rows of the last pass with a change to what the head reads.

        Args:
            size: how many rows.
            change: from what the head reads, (size, ...), to what it shall read.
        """
        assert self._read is not None, "the classifier has read something"
        return self.head.forward(change(self._read[:size]))


@torch.no_grad()
def find_head(classifier: nn.Module) -> nn.Module:
    """The direct part of a classifier whose output are its logits.

    Raises:
        InputError: when there is none.
    """
    model: Any = classifier
    outputs: dict[str, Any] = {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name, part in model.named_children()
        if part is not model.base_model
    ]
    was_training = model.training
    device = next(model.parameters()).device
    logits_BC = model.eval()(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device)).logits
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    for name, output in outputs.items():
        if isinstance(output, Tensor) and torch.equal(output, logits_BC):
            return model.get_submodule(name)
    raise InputError(
        f"No part of {type(model).__name__} puts out its logits, so there is nothing to mix.",
        "classifiers with a head of their own (RoBERTa, BERT, DistilBERT, ELECTRA, DeBERTa ...)",
        "Choose another encoder, or another loss than mixup.",
    )
