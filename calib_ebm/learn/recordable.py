"""Which trainings' steps can be recorded (`graphed.py`), and why others cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from calib_ebm.energy.attend import takes_rows
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.heads import Energy
from calib_ebm.energy.packed import Packed
from calib_ebm.errors import InputError
from calib_ebm.loss.joint import JointLoss

MAYBE_ONE = r"1|-1|auto|\[\d+\]|\d+,"
"""Of `trainer.devices`: one device, or as many as there are."""
ALLOWED = "false; true, on one GPU with bf16-mixed; auto: where that can be"


class Circumstances(NamedTuple):
    """Under which a training goes on."""

    device: torch.device
    precision: str
    """As Lightning calls it."""
    is_alone: bool
    """One process that holds the weights as they are: no `ddp`, no `fsdp`."""
    accumulated: int = 1
    """Batches whose gradients are added up for a step."""
    chunks: bool = False
    """Noise is backpropagated in chunks."""
    language: bool = False
    """There is a masked-LM loss besides."""


def check_graphs(trainer: Mapping[str, Any], loss: JointLoss, language: bool) -> None:
    """Refuse what can be known to be impossible before anything is computed.

    Args:
        trainer: the `trainer` group.
        loss: of labels and energy.
        language: whether there is a masked-LM loss besides.

    Raises:
        InputError: for another word than there is, and where steps shall be recorded and cannot be.
    """
    asked = trainer["graphs"]
    if not isinstance(asked, bool) and asked != "auto":
        raise InputError(f"trainer.graphs is {asked!r}.", ALLOWED, "Set trainer.graphs=false.")
    is_alone = (
        str(trainer["strategy"]) == "auto"
        and str(trainer["num_nodes"]) == "1"
        and re.fullmatch(MAYBE_ONE, str(trainer["devices"])) is not None
    )
    on_gpu = torch.device("cpu" if trainer["accelerator"] == "cpu" else "cuda")
    precision = "bf16-mixed" if trainer["precision"] == "auto" else str(trainer["precision"])
    chunks = trainer["noise_chunk"] is not None
    known = Circumstances(on_gpu, precision, is_alone, chunks=chunks, language=language)
    if asked is True and (why := _why_not_here(known) or _why_not_of(loss, None, known)):
        raise refusal(why)


def refusal(why: str) -> InputError:
    """Steps shall be recorded, and cannot be."""
    return InputError(
        f"trainer.graphs is true, but {why}.",
        ALLOWED,
        "Set trainer.graphs=auto, which records steps where they can be recorded.",
    )


def why_not(passes: Packed | Grouped, loss: JointLoss, circumstances: Circumstances) -> str | None:
    """Why steps cannot be recorded; None if they can."""
    why = _why_not_here(circumstances) or _why_not_of(loss, passes.network.energy, circumstances)
    if why:
        return why
    if not isinstance(passes, Packed):
        return "texts of this encoder cannot stand in one row"
    config: Any = passes.network.encoder.config
    width, device = config.hidden_size // config.num_attention_heads, circumstances.device
    if not takes_rows(*[torch.empty(0, 1, width, dtype=torch.bfloat16, device=device)] * 3):
        return "there is no attention for rows on this GPU, or for heads of this width"
    return None


def _why_not_here(circumstances: Circumstances) -> str | None:
    if circumstances.device.type != "cuda":
        return f"graphs are for GPUs, and the training is on {circumstances.device.type}"
    if not circumstances.is_alone:
        return "the weights are those of several processes, or of a strategy for several"
    if circumstances.precision != "bf16-mixed":
        return f"the precision is {circumstances.precision}"
    if circumstances.chunks or circumstances.accumulated > 1:
        return "gradients are added up from several parts"
    return None


def _why_not_of(loss: JointLoss, energy: Energy | None, circumstances: Circumstances) -> str | None:
    is_pure = loss.label.is_pure and (energy is None or energy.is_pure)
    if is_pure and not circumstances.language:
        return None
    return "this loss, or this energy, asks the host for something, or keeps something"
