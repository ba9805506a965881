"""Token noise: content tokens replaced by others of the model's own vocabulary.

The robustness check of the reference (He et al., EACL 2021), at rates of .1 and .2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib_ebm.shapes import Encoded, Example
from calib_ebm.text.corrupt import generator_for
from calib_ebm.tokens.tokenizer import TextTokenizer


def corrupt_tokens(
    tokenizer: TextTokenizer,
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    rate: float,
    seed: int,
) -> list[Encoded]:
    """Replace each content token with probability `rate` by one drawn evenly from the vocabulary.

    Special tokens are neither replaced (`Encoded` has none) nor drawn. A draw that happens to be
    the token that was there stays, so a share of `rate` (1 - 1 / V) of the tokens is changed.

    Args:
        tokenizer: of the model.
        examples: the texts, whose ids determine what happens to each.
        encoded: the same texts as tokens.
        rate: of replacement; what is replaced at a low rate is, by the same token, at a higher one.
        seed: of the whole corruption.
    """
    content = np.asarray(sorted({*tokenizer.vocabulary.values()} - tokenizer.special_ids))
    worse = []
    for example, text in zip(examples, encoded, strict=True):
        rng = generator_for(example.id, "tokens", seed)
        ids_a = _replaced(text.ids_a, content, rate, rng)
        ids_b = None if text.ids_b is None else _replaced(text.ids_b, content, rate, rng)
        worse.append(text._replace(ids_a=ids_a, ids_b=ids_b))
    return worse


def _replaced(
    ids: Sequence[int], content: np.ndarray, rate: float, rng: np.random.Generator
) -> list[int]:
    chance, drawn = rng.random(len(ids)), rng.integers(len(content), size=len(ids))
    return np.where(chance < rate, content[drawn], np.asarray(ids, dtype=np.int64)).tolist()
