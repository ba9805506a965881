"""The legend, and the records that the rooms hand on.

Axis letters, used as suffixes of tensor names (`logits_BC` is a B by C tensor):

    B texts in a batch      T tokens of a text      V vocabulary     C classes
    K noise texts per text  H hidden width          M bins           N texts of a set
    S texts of a batch with noise

A text travels as `Example` (words), `Encoded` (content token ids) and `TokenBatch` (padded
tensors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    # Texts are read, and what is wrong with them is said, before torch takes its seconds.
    import numpy as np
    from torch import Tensor


class Example(NamedTuple):
    """One labelled text, or pair of texts, as it was written."""

    id: str
    """Unique within the task and stable between runs: split and row, e.g. `dev-17`."""
    text: str
    text_pair: str | None
    label: int
    """Index into the task's label names; -1 where no label is known."""


class Encoded(NamedTuple):
    """One text, or pair, as content token ids: no special tokens, already cut in length."""

    ids_a: list[int]
    ids_b: list[int] | None
    label: int
    """As in `Example`; -1 for noise that carries no label."""


class TokenBatch(NamedTuple):
    """Padded model input. Padding is on the right."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    token_type_ids_BT: Tensor | None
    length_B: np.ndarray | None = None
    """Tokens of each text, where the host knows them: it would wait for a GPU to tell it."""


class JointBatch(NamedTuple):
    """B labelled texts and, in the same encoder pass, K noise texts for S of them.

    `tokens` has B + S*K rows: the B data texts first, then the S*K noise texts, so that rows
    `B + K*s ... B + K*s + K - 1` are the noise of text s, one of the S that have noise.
    """

    tokens: TokenBatch
    label_B: Tensor
    index_B: Tensor
    """Row of each text in its split: what keeps every example counted once under DDP."""
    noise_label_SK: Tensor | None
    """Labels of the noise texts, -1 where unknown; None where the batch carries no noise."""
