"""Low-rank adaptation of the encoder through peft, and back to plain weights.

    W x  becomes  W x + alpha / rank * B A x,    A of shape (rank, in), B of (out, rank), 0 at first

Only A and B are trained, with whatever lies behind the encoder. Source: Hu et al., ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from calib_ebm.errors import InputError

TARGETS = ("attention", "all_linear")
QUERIES_AND_VALUES = frozenset(
    {"query", "value", "query_proj", "value_proj", "q_lin", "v_lin", "q_proj", "v_proj", "q", "v"}
    # Queries, keys and values in one.
    | {"in_proj", "Wqkv", "qkv_proj"}
)
"""Names of these layers in transformers' encoders."""
NAME = "lora"
POOLER = "pooler"


@dataclass(frozen=True)
class LoraOptions:
    """Settings of `encoder.lora`."""

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.05
    targets: str = "attention"

    def __post_init__(self) -> None:
        checks = (
            ("rank", self.rank >= 0, "a whole number from 0", "8"),
            ("alpha", 0 < self.alpha < float("inf"), "a number above 0", "16"),
            ("dropout", 0 <= self.dropout < 1, "a number from 0 to 1, 1 excluded", "0.05"),
            ("targets", self.targets in TARGETS, ", ".join(TARGETS), TARGETS[0]),
        )
        for name, good, allowed, example in checks:
            if not good:
                raise InputError(
                    f"encoder.lora.{name} is {getattr(self, name)!r}.",
                    allowed,
                    f"Set encoder.lora.{name}={example}.",
                )


def add_lora(classifier: nn.Module, options: LoraOptions) -> None:
    """Freeze the encoder's weights and put low-rank additions beside some; nothing at rank 0.

    A pooler at the encoder's end stays trained as it is: in many checkpoints its weights are new.

    Raises:
        InputError: when peft is not installed, or no layer of the encoder is a target.
    """
    if options.rank == 0:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError(
            "encoder.lora.rank is set, and the package peft is not installed.",
            "encoder.lora.rank=0, or peft",
            "pip install 'calib-ebm[lora]'",
        ) from error
    model: Any = classifier
    encoder: nn.Module = model.base_model
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # peft divides it by the rank
        lora_dropout=options.dropout,
        target_modules=targets_of(encoder, options.targets),
        bias="none",
    )
    encoder.requires_grad_(False)
    inject_adapter_in_model(config, encoder, adapter_name=NAME)
    encoder.train(encoder.training)  # the new parts too
    pooler = getattr(encoder, POOLER, None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(True)


def targets_of(encoder: nn.Module, targets: str) -> list[str]:
    """Names of the encoder's linear layers that get additions.

    Raises:
        InputError: when there are none.
    """
    linear = [
        name
        for name, part in encoder.named_modules()
        if isinstance(part, nn.Linear) and POOLER not in name.split(".")
    ]
    if targets == "attention":
        linear = [name for name in linear if name.rpartition(".")[2] in QUERIES_AND_VALUES]
    if not linear:
        raise InputError(
            f"encoder.lora.targets is {targets!r}, and {type(encoder).__name__} has no such layer.",
            ", ".join(TARGETS),
            "Set encoder.lora.targets=all_linear, or encoder.lora.rank=0.",
        )
    return linear


def merge_lora(classifier: nn.Module) -> None:
    """Add the low-rank additions to the weights beside them, and leave a plain model."""
    model: Any = classifier
    added = [
        (name, part) for name, part in model.named_modules() if hasattr(part, "get_base_layer")
    ]
    for name, part in added:
        part.merge(safe_merge=True)
        plain = part.get_base_layer()
        model.set_submodule(name, plain)
    if added:
        del model.base_model.peft_config
        model.requires_grad_(True)
