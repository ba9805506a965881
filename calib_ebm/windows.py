"""Many texts scored at the price of their real tokens: a window at a time, sorted by length.

A window is some thousand texts. Sorted by length and cut into passes of about as many tokens, none
of them pads much; what is left is not computed where the encoder can be packed
(`energy/packed.py`).
What a window gives depends on the window alone, so that texts may be scored by whoever is free, or
after a kill, and come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import build_passes
from calib_ebm.shapes import Example, TokenBatch
from calib_ebm.tokens.collate import pad_batch
from calib_ebm.tokens.order import by_tokens
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples

WINDOW = 2048
"""Texts of a window: enough that neighbours by length are of one length, mostly."""
TOKENS_CPU, TOKENS_GPU = 1536, 32_768
"""Tokens of a pass: on a CPU what stays near the cores; on a GPU what keeps it busy."""
GROUPS = 2
"""Of similar length, in attention of a pass."""


class ScoredWindow(NamedTuple):
    """What was found of B texts, in their order, on the CPU."""

    logits_BC: Tensor
    """Before calibration, in float32."""
    energy_B: Tensor | None
    cut: int
    """How many of the texts were too long, and lost their ends."""


class WindowScorer:
    """Scores windows of texts by one network.

    Args:
        network: classifier and energy, in evaluation mode, on the device that computes.
        tokenizer: of its encoder.
        tokens: of a pass, at most; None: as the device likes it.
        bf16: whether matrices are multiplied in bfloat16.
    """

    def __init__(
        self,
        network: EnergyNetwork,
        tokenizer: TextTokenizer,
        tokens: int | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.device = next(network.parameters()).device
        on_cpu = self.device.type == "cpu"
        self.tokens = tokens or (TOKENS_CPU if on_cpu else TOKENS_GPU)
        self.bf16 = bf16
        self.network = network
        self.passes = build_passes(network, GROUPS, one=True)

    @torch.inference_mode()
    def score(self, examples: Sequence[Example], seed: int = 0) -> ScoredWindow:
        """Score the texts of a window.

        Args:
            examples: the texts; none of them is empty.
            seed: for an energy that draws.
        """
        encoded, cut = encode_examples(self.tokenizer, examples)
        lengths = [
            len(text.ids_a) + len(text.ids_b or ()) + self._specials(text.ids_b is not None)
            for text in encoded
        ]
        rows: list[int] = []
        logits, energies = [], []
        precision: Any = nullcontext()
        if self.bf16:
            precision = torch.autocast(self.device.type, dtype=torch.bfloat16)
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices=devices), precision:
            torch.manual_seed(seed)
            for batch in by_tokens(lengths, self.tokens):
                tokens = pad_batch(self.tokenizer, [encoded[row] for row in batch])
                scores = self.passes(to_device(tokens, self.device))
                rows += batch
                logits.append(scores.logits_BC)
                if scores.energy_B is not None:
                    energies.append(scores.energy_B)
        back = torch.tensor(rows, dtype=torch.long).argsort()
        energy_B = torch.cat(energies).float().cpu()[back] if energies else None
        return ScoredWindow(torch.cat(logits).float().cpu()[back], energy_B, cut)

    def _specials(self, pair: bool) -> int:
        return (self.tokenizer.pair if pair else self.tokenizer.single).size


def to_device(tokens: TokenBatch, device: torch.device) -> TokenBatch:
    """The batch on another device."""
    types_BT = tokens.token_type_ids_BT
    return TokenBatch(
        tokens.input_ids_BT.to(device),
        tokens.attention_mask_BT.to(device),
        None if types_BT is None else types_BT.to(device),
    )
