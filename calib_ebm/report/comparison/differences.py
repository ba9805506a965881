"""Means over seeds and differences in pairs, with intervals that hold seeds and texts.

A method's figure varies with the seed of its training and with the texts it is measured on. Over
S seeds measured on the same N texts, with value_s of each seed,

    mean     = sum_s value_s / S
    variance = sd(value_s)^2 / S  +  variance of the mean over resamples of the texts

with Student's interval and Welch's and Satterthwaite's degrees of freedom: S - 1 where the seeds
make all of the variance, many where the texts do. It is a little wide, for a text's own part in
each seed's spread is counted twice. With one seed the interval is that of the texts alone, from the
points of its resamples less their own shift, and what other seeds would give stays unknown.

A difference is the same of value_s(a) - value_s(b) over the seeds that both have, on the same
resamples: what the two share cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calib_ebm.calibration.intervals import (
    LEVEL,
    NORMAL_QUANTILE,
    student_central,
    student_quantile,
)
from calib_ebm.errors import InputError
from calib_ebm.report.columns import Floats
from calib_ebm.report.comparison.members import Member, require_same_texts

MOST_DEGREES = 200
"""Student's interval with more is the normal one to two digits."""


@dataclass(frozen=True)
class Combined:
    """A mean over seeds with its 95% interval over seeds and texts."""

    value: float
    low: float
    high: float
    seeds: int
    spread: float | None
    """Standard deviation over seeds; None of one seed."""
    share_of_seeds: float
    """Of the variance: what no further text can take away."""
    p_value: float | None = None
    """Two-sided, of a true value of zero; None of what is known by its ends only."""

    @property
    def sure(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def texts_needed(self, texts: int) -> int | None:
        """About how many texts would bring the interval's end to zero, the value staying as it is.

        The variance from the texts falls with their number, that from the seeds does not: None,
        if no number of texts suffices and it is seeds that are missing, or if there is no
        difference at all.
        """
        half = self.value - self.low if self.value > 0 else self.high - self.value
        from_seeds = self.share_of_seeds * half**2
        room = self.value**2 - from_seeds
        if room <= 0 or half == 0:
            return None
        return max(1, math.ceil(texts * (half**2 - from_seeds) / room * (1 - 1e-9)))


def combine(values: Sequence[float], resampled: Sequence[Floats]) -> Combined:
    """The mean of a figure over seeds, from its values and its values on shared resamples.

    Args:
        values: of each of S seeds.
        resampled: of each seed, R values on the same R resamples of the texts.
    """
    seeds = len(values)
    assert seeds == len(resampled) > 0
    value = float(np.mean(values))
    mean_R = np.mean(np.stack(resampled), axis=0)
    if seeds == 1:
        centred_R = mean_R - mean_R.mean()
        ends = value + np.quantile(centred_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        beyond = min(int((centred_R <= -value).sum()), int((centred_R >= -value).sum()))
        chance = min(1.0, 2 * (1 + beyond) / (1 + len(centred_R)))
        return Combined(value, float(ends[0]), float(ends[1]), 1, None, 0.0, chance)
    return _of_several(values, float(np.var(mean_R, ddof=1)))


def combine_estimates(estimates: Sequence[tuple[float, float, float]]) -> Combined:
    """The same of figures that are known as (value, low, high) and not by their resamples.

    What the texts do to one seed they are taken to do to all, so that of the texts' variance
    nothing is averaged away.
    """
    values = [value for value, _, _ in estimates]
    if len(estimates) == 1:
        return Combined(*estimates[0], 1, None, 0.0)
    errors = [(high - low) / (2 * NORMAL_QUANTILE) for _, low, high in estimates]
    return _of_several(values, float(np.mean(np.square(errors))))


def _of_several(values: Sequence[float], of_texts: float) -> Combined:
    """Student's interval from the values of several seeds and the texts' share of the variance."""
    seeds, value = len(values), float(np.mean(values))
    spread = float(np.std(values, ddof=1))
    of_seeds = spread**2 / seeds
    error = math.sqrt(of_seeds + of_texts)
    degrees = MOST_DEGREES
    if of_seeds > 0:
        welch = (seeds - 1) * ((of_texts + of_seeds) / of_seeds) ** 2
        degrees = max(1, min(MOST_DEGREES, math.floor(welch)))
    half = student_quantile(LEVEL, degrees) * error
    share = of_seeds / error**2 if error else 0.0
    chance = 1 - student_central(abs(value) / error, degrees) if error else float(value == 0)
    return Combined(value, value - half, value + half, seeds, spread, share, chance)


def mean_of(runs: Mapping[int, Member], figure: str) -> Combined | None:
    """A figure's mean over the seeds of a method; None where a run lacks it."""
    if any(figure not in run.values for run in runs.values()):
        return None
    return combine(
        [run.values[figure] for run in runs.values()],
        [run.resampled[figure] for run in runs.values()],
    )


def difference(
    a: Mapping[int, Member], b: Mapping[int, Member], figure: str, other: str | None = None
) -> Combined | None:
    """Mean of a - b over the seeds that both methods have, on the same texts.

    None where they share no seed or one of them lacks the figure.

    Args:
        a: runs of one method by seed.
        b: of another.
        figure: as in `Member.values`.
        other: the figure of b; None: the same.

    Raises:
        InputError: two runs are not measured on the same texts.
    """
    seeds, other = sorted(set(a) & set(b)), other or figure
    if not seeds or any(figure not in a[s].values or other not in b[s].values for s in seeds):
        return None
    for seed in seeds:
        require_same_texts(a[seed], b[seed])
    return combine(
        [a[s].values[figure] - b[s].values[other] for s in seeds],
        [a[s].resampled[figure] - b[s].resampled[other] for s in seeds],
    )


def best_of(
    methods: Mapping[str, Mapping[int, Member]], figure: str, better: str
) -> tuple[str | None, Combined | None]:
    """The method whose mean is best, if its difference to the second is off zero; else None.

    Args:
        methods: name to its runs by seed.
        figure: as in `Member.values`.
        better: "higher" or "lower".

    Returns:
        its name, and the difference of best and second, where there are two.
    """
    if better not in ("higher", "lower"):
        raise InputError(f"better is {better!r}.", "higher | lower", "Give one of these.")
    sign = 1.0 if better == "lower" else -1.0
    means = {name: mean_of(runs, figure) for name, runs in methods.items()}
    ranked = sorted(
        (name for name, mean in means.items() if mean is not None),
        key=lambda name: sign * means[name].value,  # type: ignore[union-attr]
    )
    if len(ranked) < 2:
        return None, None
    gap = difference(methods[ranked[0]], methods[ranked[1]], figure)
    wins = gap is not None and gap.sure and sign * gap.value < 0
    return (ranked[0] if wins else None), gap
