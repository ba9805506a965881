"""The figures: arrays in, an SVG string out. None of them knows what a run folder is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from calib_ebm.report import svg
from calib_ebm.report.columns import Floats

FEW = 10
"""Bins with fewer texts than this are drawn faint: their frequency says little."""
MOST_POINTS = 1000
"""Of a scatter; more would make the page heavy and show no more."""


@dataclass(frozen=True)
class Bins:
    """M bins of confidence."""

    edges: Floats
    """M + 1 of them."""
    count_M: Floats
    confidence_M: Floats
    """Mean confidence of the bin's texts."""
    frequency_M: Floats
    """How often the predicted class is right there."""
    band: tuple[Floats, Floats] | None = None
    """Lower and upper ends of that frequency's intervals."""


def reliability(bins: Bins, slug: str, label: str) -> str:
    """Reliability diagram: frequency against confidence, the gaps, and the counts underneath."""
    with svg.drawing():
        # Fixed margins, so that two of these beside each other line up whatever their counts are.
        figure = Figure(figsize=(svg.WIDE[0], svg.WIDE[1] + 0.5))
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        figure.subplots_adjust(left=0.15, right=0.95, top=0.87, bottom=0.105, hspace=0.08)
        _draw_gaps(upper, bins)
        _draw_counts(lower, bins)
        return svg.to_svg(figure, slug, label)


def _draw_gaps(axes: Axes, bins: Bins) -> None:
    shared = np.minimum(bins.frequency_M, bins.confidence_M)
    over = np.maximum(bins.confidence_M - bins.frequency_M, 0)
    under = np.maximum(bins.frequency_M - bins.confidence_M, 0)
    layers = (
        ("how often right", svg.FIRST, 0.75, shared, np.zeros_like(shared)),
        ("right less often than said", svg.GAP, 0.5, over, shared),
        ("right more often than said", svg.SECOND, 0.6, under, shared),
    )
    for many, strength in ((True, 1.0), (False, 0.3)):
        drawn = (bins.count_M > 0) & ((bins.count_M >= FEW) == many)
        for name, color, alpha, height, bottom in layers:
            axes.bar(
                bins.edges[:-1][drawn],
                height[drawn],
                np.diff(bins.edges)[drawn],
                bottom[drawn],
                align="edge",
                color=color,
                alpha=alpha * strength,
                label=name if many else None,
            )
    if bins.band is not None:
        drawn = bins.count_M >= FEW
        middle = (bins.edges[:-1] + bins.edges[1:]) / 2
        low, high = (end[drawn] for end in bins.band)
        axes.vlines(middle[drawn], low, high, color=svg.INK, linewidth=0.9)
    axes.plot([0, 1], [0, 1], color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="Right")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    svg.soft_grid(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.2, labelspacing=0.25)


def _draw_counts(axes: Axes, bins: Bins) -> None:
    drawn = bins.count_M > 0
    # Logarithmic, and from a half, so that a bin of one text is seen beside a bin of thousands.
    axes.bar(
        bins.edges[:-1][drawn],
        bins.count_M[drawn] - 0.5,
        np.diff(bins.edges)[drawn],
        bottom=0.5,
        align="edge",
        color=svg.MUTED,
        alpha=0.7,
    )
    axes.set_yscale("log")
    # Up to the power of ten above all texts: the same for two diagrams of the same texts.
    axes.set_ylim(0.5, 10.0 ** math.ceil(math.log10(max(10.0, float(bins.count_M.sum())))))
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=4))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set(xlabel="Confidence: probability of the predicted class", ylabel="Texts")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    svg.soft_grid(axes)


def curve(
    step: Floats, value: Floats, slug: str, label: str, *, as_percent: bool, from_zero: bool = False
) -> str:
    """A logged value over steps, with its running mean where it is noisy.

    Args:
        step: where it was logged, ascending.
        value: of the same length, finite.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
        as_percent: the value is a share.
        from_zero: the axis begins at zero, where that is the best value there is.
    """
    with svg.drawing():
        figure, axes = svg.panel(svg.SMALL)
        smooth = running_mean(value)
        if smooth is None:
            marker = "o" if len(value) < 30 else None
            axes.plot(step, value, color=svg.FIRST, marker=marker, markersize=3.5)
        else:
            axes.plot(step, value, color=svg.FIRST, alpha=0.3, linewidth=0.8)
            axes.plot(step, smooth, color=svg.FIRST)
        if from_zero:
            axes.set_ylim(bottom=0)
        if len(set(step.tolist())) == 1:
            axes.set_xlim(step[0] - 1, step[0] + 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        if as_percent:
            axes.yaxis.set_major_formatter(
                PercentFormatter(1, decimals=svg.percent_decimals(axes.get_yticks()))
            )
        axes.set_xlabel("Step")
        return svg.to_svg(figure, slug, label)


def running_mean(value: Floats) -> Floats | None:
    """Mean of the neighbours within a twentieth of the length; None for few values.

    Where there are none on one side, the line through those at the end: a steady fall stays one up
    to its last value, and no single value decides how a curve ends.
    """
    if len(value) < 60:
        return None
    reach = len(value) // 40
    offset = np.arange(-reach, reach + 1)
    middle = np.convolve(value, np.full(len(offset), 1 / len(offset)), mode="valid")

    def line(part: Floats) -> Floats:
        return np.asarray(part.mean() + offset * ((part @ offset) / (offset @ offset)))

    begin, end = line(value[: len(offset)]), line(value[-len(offset) :])
    return np.concatenate([begin[:reach], middle, end[reach + 1 :]])


def histograms(
    values: Mapping[str, Floats], limits: tuple[float, float], slug: str, label: str
) -> str:
    """Two samples as overlaid histograms of shares, a dashed line at each median.

    Args:
        values: name in the legend to the sample; what is outside `limits` is left out.
        limits: of the axis, low below high.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
    """
    with svg.drawing():
        figure, axes = svg.panel((4.2, 3.5))
        edges = np.linspace(*limits, 41)
        for (name, sample), color in zip(values.items(), (svg.FIRST, svg.SECOND), strict=False):
            if not len(sample):
                continue
            share = np.full(len(sample), 1 / len(sample))
            looks: tuple[tuple[Literal["stepfilled", "step"], float, float], ...]
            looks = (("stepfilled", 0.4, 0.0), ("step", 1.0, 1.0))
            for look, alpha, width in looks:
                axes.hist(
                    sample,
                    edges.tolist(),
                    weights=share,
                    histtype=look,
                    color=color,
                    alpha=alpha,
                    linewidth=width,
                    label=name if look == "stepfilled" else None,
                )
            median = float(np.median(sample))
            if limits[0] <= median <= limits[1]:
                axes.axvline(median, color=color, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlabel="Energy", ylabel="Share of texts", xlim=limits)
        _legend_above(axes)
        return svg.to_svg(figure, slug, label)


def robust_limits(samples: Sequence[Floats]) -> tuple[float, float]:
    """Limits that hold nearly all finite values: two ranges of the middle 98%, cut to the data.

    >>> robust_limits([np.append(np.linspace(0.0, 1.0, 1001), 1e30)])[1] < 2
    True
    """
    finite = np.concatenate([sample[np.isfinite(sample)] for sample in samples])
    if not len(finite):
        return (-1.0, 1.0)
    low, high = (float(edge) for edge in np.percentile(finite, [1, 99]))
    reach = (high - low) / 2
    low, high = max(low - reach, float(finite.min())), min(high + reach, float(finite.max()))
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        room = max(1.0, 0.01 * abs(low))
        return (low - room, high + room)
    return (low, high)


def agreement(
    groups: Mapping[str, tuple[Floats, Floats]],
    slug: str,
    label: str,
    *,
    axis_labels: tuple[str, str],
    limits: tuple[float, float] | None = None,
) -> str:
    """A scatter with the line on which both axes agree.

    Args:
        groups: name in the legend to (x, y); points that are not finite are left out.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
        axis_labels: of x and of y.
        limits: of both axes, which are then shares; from the data where not given.
    """
    with svg.drawing():
        figure, axes = svg.panel((4.2, 3.5))
        for (name, (x, y)), color in zip(groups.items(), (svg.FIRST, svg.SECOND), strict=False):
            x, y = thinned(x, y, MOST_POINTS // len(groups))
            axes.plot(
                x, y, "o", color=color, alpha=0.4, markersize=3, markeredgewidth=0, label=name
            )
        x_limits, y_limits = _both_limits(groups) if limits is None else (limits, limits)
        low, high = min(x_limits[0], y_limits[0]), max(x_limits[1], y_limits[1])
        axes.plot([low, high], [low, high], color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=_roomy(x_limits), ylim=_roomy(y_limits))
        axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
        if limits is not None:
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if len(groups) > 1:
            _legend_above(axes)
        return svg.to_svg(figure, slug, label)


def thinned(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """At most `most` of the finite points, evenly over their order."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    chosen = np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int)
    return x[chosen], y[chosen]


def _both_limits(
    groups: Mapping[str, tuple[Floats, Floats]],
) -> tuple[tuple[float, float], tuple[float, float]]:
    both = [np.isfinite(x) & np.isfinite(y) for x, y in groups.values()]
    xs = [x[keep] for (x, _), keep in zip(groups.values(), both, strict=True)]
    ys = [y[keep] for (_, y), keep in zip(groups.values(), both, strict=True)]
    return robust_limits(xs), robust_limits(ys)


def _roomy(limits: tuple[float, float]) -> tuple[float, float]:
    room = 0.03 * (limits[1] - limits[0])
    return (limits[0] - room, limits[1] + room)


def _legend_above(axes: Axes) -> None:
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handlelength=1.2, borderaxespad=0.2
    )
