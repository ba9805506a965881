"""Many texts scored at the price of their real tokens: a set or a window of them, by length.

A window is some thousand texts. Sorted by length and cut into passes of about as many tokens, none
of them pads much; what is left is not computed where the encoder can be packed
(`energy/packed.py`).
What a pass gives depends on its texts alone, so that they may be scored by whoever is free, by any
number of processes, or after a kill, and come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import build_passes
from calib_ebm.errors import InputError
from calib_ebm.shapes import Encoded, Example, TokenBatch
from calib_ebm.tokens.collate import pad_batch
from calib_ebm.tokens.order import by_tokens
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples

WINDOW = 2048
"""Texts of a window: enough that neighbours by length are of one length, mostly."""
TOKENS_CPU, TOKENS_GPU = 1536, 32_768
"""Tokens of a pass: on a CPU what stays near the cores; on a GPU what keeps it busy."""
GROUPS = 2
"""Of similar length, in attention of a pass."""


class ScoredRows(NamedTuple):
    """Scores of some rows of a set, in the order in which they were computed, on the CPU."""

    rows: Tensor
    logits_BC: Tensor
    """Before calibration, in float32."""
    energy_B: Tensor | None


class ScoredWindow(NamedTuple):
    """What was found of B texts, in their order, on the CPU."""

    logits_BC: Tensor
    """Before calibration, in float32."""
    energy_B: Tensor | None
    cut: int
    """How many of the texts were too long, and lost their ends."""


def _tell_nobody(_: int) -> None:
    """Where nobody asks how far it is."""


class WindowScorer:
    """Scores windows of texts, and sets of them, by one network.

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
        self.asked = tokens
        self.bf16 = bf16
        self.network = network
        self.passes = build_passes(network, GROUPS, one=True)

    @property
    def device(self) -> torch.device:
        """That the network is on."""
        return next(self.network.parameters()).device

    @property
    def tokens(self) -> int:
        """Of a pass, at most."""
        return self.asked or (TOKENS_CPU if self.device.type == "cpu" else TOKENS_GPU)

    def score(self, examples: Sequence[Example], seed: int = 0) -> ScoredWindow:
        """Score the texts of a window.

        Args:
            examples: the texts; none of them is empty.
            seed: for an energy that draws.

        Raises:
            InputError: when the device has not enough memory for a pass.
        """
        encoded, cut = encode_examples(self.tokenizer, examples)
        found = self.score_encoded(encoded, seed=seed)
        back = found.rows.argsort()
        energy_B = None if found.energy_B is None else found.energy_B[back]
        return ScoredWindow(found.logits_BC[back], energy_B, cut)

    @torch.inference_mode()
    def score_encoded(
        self,
        encoded: Sequence[Encoded],
        rank: int = 0,
        world: int = 1,
        *,
        seed: int = 0,
        tell: Callable[[int], None] = _tell_nobody,
    ) -> ScoredRows:
        """Score this process's share of a set.

        The passes are the same however many processes deal them out, and each has random numbers
        of its own.

        Args:
            encoded: the set, the same in all processes.
            rank: which process this is.
            world: of how many.
            seed: for an energy that draws, and for dropout where the network is in training.
            tell: is told after each pass how many texts of the set are done, as far as the other
                processes are as quick.

        Raises:
            InputError: when the device has not enough memory for a pass.
        """
        rows: list[int] = []
        logits, energies = [torch.zeros(0, self._classes)], [torch.zeros(0)]
        batches = by_tokens([self._length(text) for text in encoded], self.tokens)
        with self._as_asked():
            for number in range(rank, len(batches), world):
                torch.manual_seed(_seed_of(seed, number))
                tokens = pad_batch(self.tokenizer, [encoded[row] for row in batches[number]])
                scores = self.passes(to_device(tokens, self.device))
                rows += batches[number]
                logits.append(scores.logits_BC.float().cpu())
                if scores.energy_B is not None:
                    energies.append(scores.energy_B.float().cpu())
                tell(sum(len(batch) for batch in batches[number : number + world]))
        energy_B = None if self.network.energy is None else torch.cat(energies)
        return ScoredRows(torch.tensor(rows, dtype=torch.long), torch.cat(logits), energy_B)

    @contextmanager
    def _as_asked(self) -> Iterator[None]:
        """In the precision asked for, with nobody else's random numbers."""
        precision: Any = nullcontext()
        if self.bf16:
            precision = torch.autocast(self.device.type, dtype=torch.bfloat16)
        devices = [] if self.device.type == "cpu" else [self.device]
        try:
            with torch.random.fork_rng(devices=devices), precision:
                yield
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise InputError(
                "The device has not enough memory for a pass of the encoder.",
                "passes that fit",
                f"Set tokens_per_pass={max(1, self.tokens // 4)}; of train, a smaller "
                "trainer.eval_batch_size.",
            ) from error

    def _length(self, text: Encoded) -> int:
        pair = text.ids_b is not None
        specials = self.tokenizer.pair if pair else self.tokenizer.single
        return len(text.ids_a) + len(text.ids_b or ()) + specials.size

    @property
    def _classes(self) -> int:
        classifier: Any = self.network.classifier
        return int(classifier.config.num_labels)


def _seed_of(seed: int, number: int) -> int:
    """Of a pass: far from those of other passes and other seeds."""
    return int(np.random.SeedSequence([seed % 2**64, number]).generate_state(1)[0])


def to_device(tokens: TokenBatch, device: torch.device) -> TokenBatch:
    """The batch on another device."""
    types_BT = tokens.token_type_ids_BT
    return TokenBatch(
        tokens.input_ids_BT.to(device),
        tokens.attention_mask_BT.to(device),
        None if types_BT is None else types_BT.to(device),
        tokens.length_B,
    )
