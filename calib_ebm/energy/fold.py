"""Folding an affine map of the logits into the layer that makes them.

    W (V h + v) + b  =  (W V) h + (W v + b)

so that a calibrator which is affine in the logits needs no code of ours: whoever loads the
classifier gets calibrated logits from its own last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
"""How far folded logits may be from mapped ones, as a part of the largest, or of one."""


class Head(NamedTuple):
    """Weight (C by H) and bias (C, or None) of a last layer."""

    weight_CH: Tensor
    bias_C: Tensor | None

    @classmethod
    def of(cls, layer: nn.Linear) -> Head:
        """A copy of a layer's."""
        bias_C = None if layer.bias is None else layer.bias.detach().cpu().clone()
        return cls(layer.weight.detach().cpu().clone(), bias_C)

    def put_into(self, layer: nn.Linear) -> None:
        """Overwrite a layer's values."""
        with torch.no_grad():
            layer.weight.copy_(self.weight_CH)
            if self.bias_C is not None:
                layer.bias.copy_(self.bias_C)

    def mapped(self, weight_CC: Tensor, bias_C: Tensor) -> Head | None:
        """The head of the mapped logits; None where a bias is needed and there is no place."""
        if self.bias_C is None:
            if bool(bias_C.any()):
                return None
            mapped_C = None
        else:
            mapped_C = (weight_CC @ self.bias_C.double() + bias_C).to(self.bias_C.dtype)
        weight_CH = (weight_CC @ self.weight_CH.double()).to(self.weight_CH.dtype)
        return Head(weight_CH, mapped_C)

    def near(self, other: Head) -> bool:
        """Whether two heads are the same but for rounding."""
        pairs = [(self.weight_CH, other.weight_CH)]
        if self.bias_C is not None and other.bias_C is not None:
            pairs.append((self.bias_C, other.bias_C))
        return (self.bias_C is None) == (other.bias_C is None) and all(
            a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-6)
            for a, b in pairs
        )


def find_last_layer(model: nn.Module, logits: Callable[[], Tensor], classes: int) -> str | None:
    """The name of the linear layer whose output is the logits; None when there is no such layer.

    Found by looking at what each candidate gives in a forward pass, for heads have no common name
    (`classifier`, `classifier.out_proj`, `score` ...).

    Args:
        model: the classifier.
        logits: runs it on a probe and gives its logits.
        classes: C.
    """
    outputs: dict[str, list[Tensor]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs.setdefault(name, []).append(output.detach())

        return hook

    handles = [
        layer.register_forward_hook(remember(name))
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer.out_features == classes
    ]
    try:
        logits_BC = logits()
    finally:
        for handle in handles:
            handle.remove()
    found = [
        name
        for name, given in outputs.items()
        if len(given) == 1 and given[0].shape == logits_BC.shape and given[0].equal(logits_BC)
    ]
    return found[0] if len(found) == 1 else None


@contextmanager
def with_head(layer: nn.Linear, head: Head) -> Iterator[None]:
    """The layer with another head's values for a while."""
    own = Head.of(layer)
    head.put_into(layer)
    try:
        yield
    finally:
        own.put_into(layer)


def folded_head(
    layer: nn.Linear, weight_CC: Tensor, bias_C: Tensor, logits: Callable[[], Tensor]
) -> Head | None:
    """The head of the mapped logits, tried out; None when it does not give them.

    Args:
        layer: the layer that makes the logits; unchanged afterwards.
        weight_CC: of the map, float64.
        bias_C: likewise.
        logits: runs the classifier on a probe and gives its logits.
    """
    head = Head.of(layer).mapped(weight_CC, bias_C)
    if head is None or not all(part.isfinite().all() for part in head if part is not None):
        return None
    wanted_BC = logits().cpu().double() @ weight_CC.T + bias_C
    with with_head(layer, head):
        given_BC = logits().cpu().double()
    size = max(1.0, float(wanted_BC.abs().max()))
    return head if float((given_BC - wanted_BC).abs().max()) <= TOLERANCE * size else None
