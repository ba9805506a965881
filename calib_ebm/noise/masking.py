"""Masking: what of a text stays visible to the noise model.

Each token is masked with probability M on its own; a run of masks then collapses to one mask
symbol, so the noise model has to guess how much is missing too.  METHOD 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib_ebm.errors import InputError

TUNING, MEASURING, DRAWING, ORDERING, DEALING = range(5)
"""What random numbers are for: each use has a stream of its own."""


def stream(seed: int, use: int, *place: int) -> np.random.Generator:
    """Random numbers that belong to one place, e.g. (epoch, row of the text).

    Whoever computes the place, in whichever order, on whichever worker and after whichever
    interruption, gets the same numbers.
    """
    return np.random.default_rng([seed, use, *place])


def check_mask_rate(mask_rate: float) -> float:
    """The mask rate, if it is one.

    Raises:
        InputError: outside (0, 1).
    """
    if isinstance(mask_rate, int | float) and 0.0 < mask_rate < 1.0:
        return float(mask_rate)
    raise InputError(
        f"noise.mask_rate is {mask_rate}.",
        "a number between 0 and 1, both excluded",
        "Set noise.mask_rate=0.4; for noise without any context choose noise=unconditional.",
    )


def draw_mask(length: int, mask_rate: float, rng: np.random.Generator) -> np.ndarray:
    """Which of `length` tokens are masked, each with probability `mask_rate`; a boolean array."""
    return rng.random(length) < mask_rate


def collapse(
    ids: Sequence[int], masked_T: Sequence[bool] | np.ndarray, mask_symbol: int
) -> list[int]:
    """The text with each run of masked tokens replaced by one mask symbol.

    >>> collapse([5, 6, 7, 8], [False, True, True, False], mask_symbol=0)
    [5, 0, 8]
    """
    seen: list[int] = []
    in_run = False
    for token, masked in zip(ids, masked_T, strict=True):
        if not masked:
            seen.append(token)
        elif not in_run:
            seen.append(mask_symbol)
        in_run = bool(masked)
    return seen


def before_gaps(masked_T: Sequence[bool], context: int | None) -> list[bool]:
    """Which visible places stand at most `context` before a gap; None: all that are visible.

    >>> before_gaps([False, False, True, True, False, False], context=1)
    [False, True, False, False, False, False]
    """
    if context is None:
        return [not masked for masked in masked_T]
    near: list[bool] = []
    left = 0
    for masked in reversed(masked_T):
        near.append(not masked and left > 0)
        left = context if masked else left - 1
    return near[::-1]
