"""What a noise model is taught: batches of texts in the way of a mode, masks anew every epoch.

A batch, its masks included, is a function of (seed, epoch, texts): it is the same in whichever
process, and however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from calib_ebm.noise.fill import fill_batch
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import TUNING, stream
from calib_ebm.noise.modes import Lengths, Lesson, MlmFill, Mode, fit_text
from calib_ebm.noise.padding import pad_right
from calib_ebm.shapes import Encoded


class LmBatch(NamedTuple):
    """What the noise model reads, and which of its symbols it is asked for.

    `target_BT` holds at each place the symbol to be predicted there, or `IGNORED`.
    """

    input_ids_BT: Tensor
    target_BT: Tensor
    mask_BT: Tensor | None
    """1 for symbols, 0 for padding; None where causal attention makes it needless."""
    types_BT: Tensor | None
    wanted: int
    """Targets, those left out because the noise model does not know them included."""


IGNORED = -100


class LmBatches:
    """Builds batches in the way of a mode.

    Args:
        lm: the noise model: its vocabulary and, for a masked LM, its frame.
        texts: encoded texts.
        mode: what is given and what is written.
        lengths: of prefix and target.
        seed: of the masks.
    """

    def __init__(
        self, lm: NoiseLm, texts: Sequence[Encoded], mode: Mode, lengths: Lengths, seed: int
    ) -> None:
        self.lm, self.mode, self.seed = lm, mode, seed
        pairs = bool(texts) and texts[0].ids_b is not None
        budget = lengths.budget(pairs, mode)
        self.texts = [fit_text(lm.vocabulary.text(text), budget) for text in texts]

    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(text.ids_a) + len(text.ids_b or ()) for text in self.texts]

    def build(self, rows: Sequence[int], epoch: int, use: int = TUNING) -> LmBatch:
        """The batch of some texts with the masks of an epoch."""
        texts = [self.texts[row] for row in rows]
        rngs = [stream(self.seed, use, epoch, row) for row in rows]
        if isinstance(self.mode, MlmFill):
            slots = [self.mode.slots(text, rng) for text, rng in zip(texts, rngs, strict=True)]
            batch = fill_batch(self.lm, texts, slots)
            target_BT = batch.content_BT.masked_fill(~batch.slot_BT, IGNORED)
            types_BT = batch.types_BT
            return self._known(batch.input_ids_BT, target_BT, batch.mask_BT, types_BT)
        symbols = self.lm.vocabulary.symbols
        lessons = [
            self.mode.lesson(text, symbols, rng) for text, rng in zip(texts, rngs, strict=True)
        ]
        return self._write(lessons)

    def _write(self, lessons: Sequence[Lesson]) -> LmBatch:
        """Prefix, START and target in a row; each symbol is predicted at the place before it."""
        symbols = self.lm.vocabulary.symbols
        inputs, targets = [], []
        for prefix, target, asked in lessons:
            inputs.append([*prefix, symbols.start, *target[:-1]])
            wanted = [s if is_asked else IGNORED for s, is_asked in zip(target, asked, strict=True)]
            targets.append([IGNORED] * len(prefix) + wanted)
        return self._known(pad_right(inputs, symbols.pad), pad_right(targets, IGNORED), None, None)

    def _known(
        self,
        input_ids_BT: Tensor,
        target_BT: Tensor,
        mask_BT: Tensor | None,
        types_BT: Tensor | None,
    ) -> LmBatch:
        wanted = int((target_BT != IGNORED).sum())
        target_BT = target_BT.masked_fill(target_BT == self.lm.vocabulary.symbols.unknown, IGNORED)
        return LmBatch(input_ids_BT, target_BT, mask_BT, types_BT, wanted)
