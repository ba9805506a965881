"""Batches of few shapes: texts that nobody reads fill a row up to one of a few sizes.

What is recorded for one shape can be replayed for that shape alone (`learn/graphed.py`), and no two
batches have as many tokens. Nothing in a transformer looks from one text to another, so texts of
padding behind the others change nothing for them, and cost what they weigh in tokens: between two
powers of two there are 8 sizes, and 16 from 4,096 tokens on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calib_ebm.shapes import TokenBatch

LONGEST = 32
"""Tokens of such a text at most."""
FEWEST = 32
"""Distance between two sizes at least."""
MANY, FINE, COARSE = 4096, 16, 8
LENGTHS = 64
"""The longest text counts as a multiple of this."""


class Shape(NamedTuple):
    """What batches that are filled alike have in common."""

    tokens: int
    texts: int
    longest: int
    """Tokens of a text at most, as a kernel is told; no text need be so long."""


def shape_of(length_B: np.ndarray, most: int = LONGEST) -> Shape:
    """The shape that a batch is filled up to; of equally many texts there are few.

    Args:
        length_B: tokens of each text.
        most: tokens that a text of padding may have, 2 or more.

    >>> shape_of(np.full(40, 13)), shape_of(np.full(40, 14))
    (Shape(tokens=576, texts=43, longest=64), Shape(tokens=576, texts=43, longest=64))
    """
    tokens = int(length_B.sum())
    step = max(FEWEST, 2 ** (tokens.bit_length() - 1) // (FINE if tokens >= MANY else COARSE))
    # As few as can hold what is lacking, whatever it is, with a token for each.
    fillers = -(-(step - 1) // (most - 1))
    return Shape(
        -(-(tokens + fillers) // step) * step,
        len(length_B) + fillers,
        max(LENGTHS, -(-int(length_B.max()) // LENGTHS) * LENGTHS),
    )


def filled(tokens: TokenBatch, shape: Shape, pad_id: int) -> TokenBatch:
    """The batch with such texts behind its own; its lengths must be known to the host."""
    assert tokens.length_B is not None, "the host knows the lengths"
    count, rest = shape.texts - len(tokens.length_B), shape.tokens - int(tokens.length_B.sum())
    filler_D = np.full(count, rest // count)
    filler_D[: rest % count] += 1
    width = max(tokens.input_ids_BT.shape[1], int(filler_D[0]))
    device = tokens.input_ids_BT.device
    length_D = torch.from_numpy(filler_D).to(device, non_blocking=True)
    mask_DT = torch.arange(width, device=device) < length_D[:, None]

    def longer(values_BT: Tensor, fill_DT: Tensor) -> Tensor:
        missing = width - values_BT.shape[1]
        return torch.cat((torch.nn.functional.pad(values_BT, (0, missing)), fill_DT))

    mask_DT = mask_DT.to(tokens.attention_mask_BT.dtype)
    types_BT = tokens.token_type_ids_BT
    return TokenBatch(
        longer(tokens.input_ids_BT, torch.full_like(mask_DT, pad_id)),
        longer(tokens.attention_mask_BT, mask_DT),
        None if types_BT is None else longer(types_BT, torch.zeros_like(mask_DT)),
        np.concatenate((tokens.length_B, filler_D)),
    )
