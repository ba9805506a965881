"""Noise by a masked LM: every masked slot is filled in place, all in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calib_ebm.noise.filters import Sampling, draw_from, filtered_top
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.padding import pad_right
from calib_ebm.noise.vocabulary import LmText


class FillBatch(NamedTuple):
    """Framed and masked texts, padded on the right."""

    input_ids_BT: Tensor
    mask_BT: Tensor
    types_BT: Tensor
    slot_BT: Tensor
    """True where a token is masked."""
    content_BT: Tensor
    """The unmasked text; padding elsewhere."""
    side_BT: Tensor
    """0 for tokens of the first text, 1 for the second's, -1 for the frame and padding."""


def fill_batch(
    lm: NoiseLm, texts: Sequence[LmText], slots: Sequence[tuple[np.ndarray, np.ndarray]]
) -> FillBatch:
    """Texts in the masked LM's frame with their slots masked."""
    assert lm.frame is not None, "an autoregressive LM does not fill in"
    frame = lm.frame
    ids, types, masked, sides = [], [], [], []
    for text, (slots_a, slots_b) in zip(texts, slots, strict=True):
        a, b = text.ids_a, text.ids_b or []
        between = frame.between if text.ids_b is not None else ()
        head, tail = [*frame.before, *a, *between], [*b, *frame.behind]
        n_before, n_between, n_behind = len(frame.before), len(between), len(frame.behind)
        ids.append(head + tail)
        type_tail = frame.type_b if text.ids_b is not None else 0
        types.append([0] * len(head) + [type_tail] * len(tail))
        side = [-1] * n_before + [0] * len(a) + [-1] * n_between + [1] * len(b) + [-1] * n_behind
        sides.append(side)
        masked.append(
            [0] * n_before + slots_a.tolist() + [0] * n_between + slots_b.tolist() + [0] * n_behind
        )
    content_BT = pad_right(ids, lm.vocabulary.symbols.pad)
    slot_BT = pad_right(masked, 0).bool()
    return FillBatch(
        input_ids_BT=content_BT.masked_fill(slot_BT, frame.mask),
        mask_BT=pad_right([[1] * len(row) for row in ids], 0),
        types_BT=pad_right(types, 0),
        slot_BT=slot_BT,
        content_BT=content_BT,
        side_BT=pad_right(sides, -1),
    )


@torch.inference_mode()
def draw_fill(
    lm: NoiseLm,
    texts: Sequence[LmText],
    slots: Sequence[tuple[np.ndarray, np.ndarray]],
    uniform_BT: np.ndarray,
    sampling: Sampling,
) -> list[LmText]:
    """The texts with their masked slots drawn anew.

    Args:
        lm: a masked LM, in eval mode.
        texts: in ids of the noise model.
        slots: which tokens of each are masked.
        uniform_BT: a number in [0, 1) for each content token of the longest text.
        sampling: temperature and top-k.
    """
    batch = FillBatch(*(t.to(lm.device) for t in fill_batch(lm, texts, slots)))
    logits_BTV = lm.fill_logits(batch.input_ids_BT, batch.mask_BT, batch.types_BT)
    banned_V = ~torch.from_numpy(lm.vocabulary.drawable_V).to(lm.device)
    top = filtered_top(logits_BTV[batch.slot_BT], sampling, banned_V)
    # The n-th content token of a text takes its n-th number, wherever the frame puts it.
    inside_BT = batch.side_BT >= 0
    number_BT = (inside_BT.long().cumsum(dim=1) - 1).clamp(min=0)
    uniform_N = torch.from_numpy(uniform_BT).to(lm.device).gather(1, number_BT)[batch.slot_BT]
    filled_BT = batch.content_BT.masked_scatter(batch.slot_BT, draw_from(top, uniform_N))
    rows = zip(texts, filled_BT.tolist(), batch.side_BT.tolist(), strict=True)
    return [_take_apart(text, row, side) for text, row, side in rows]


def _take_apart(text: LmText, row: list[int], side: list[int]) -> LmText:
    a = [token for token, where in zip(row, side, strict=True) if where == 0]
    b = [token for token, where in zip(row, side, strict=True) if where == 1]
    return LmText(a, None if text.ids_b is None else b, text.label)
