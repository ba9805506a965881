"""The figures that show several methods or groups at once: arrays in, an SVG string out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from calib_ebm.report import svg
from calib_ebm.report.columns import Floats
from calib_ebm.report.diagrams import MOST_POINTS, thinned

COLORS = (svg.FIRST, svg.SECOND, svg.THIRD, svg.FOURTH, svg.FIFTH, svg.SIXTH)
DASHES: tuple[object, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))
"""What tells lines apart once the colours are used up."""
MOST_GROUPS = 4
"""Of histograms over one another."""
LEGEND_WIDTH = 40
"""Characters of a name in a legend before it goes on in a second line."""


@dataclass(frozen=True)
class Line:
    """A named line, with the band around it where there is one."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


def lines(
    drawn: Sequence[Line],
    slug: str,
    label: str,
    *,
    axis_labels: tuple[str, str],
    percent: tuple[bool, bool] = (False, False),
    from_zero: bool = True,
    log_x: bool = False,
) -> str:
    """Lines with their bands, named above.

    Args:
        drawn: at least one; the first is the reference.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
        axis_labels: of x and of y.
        percent: whether x, and y, are shares.
        from_zero: the y axis begins at zero.
        log_x: x is in powers of ten, with a tick at each point of the first line.
    """
    with svg.drawing():
        figure, axes = _tall_enough([line.name for line in drawn])
        for place, line in enumerate(drawn):
            color, dash = look(place)
            marker = "o" if len(line.x) < 30 else None
            axes.plot(
                line.x,
                line.y,
                color=color,
                linestyle=dash,
                marker=marker,
                markersize=3,
                label=_folded(line.name),
            )
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)
        if from_zero:
            axes.set_ylim(bottom=0)
        if log_x:
            axes.set_xscale("log")
            axes.set_xticks(drawn[0].x, [f"{x:,.0f}" for x in drawn[0].x])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
        for axis, is_share in zip((axes.xaxis, axes.yaxis), percent, strict=True):
            if is_share:
                axis.set_major_formatter(
                    PercentFormatter(1, decimals=svg.percent_decimals(axis.get_majorticklocs()))
                )
        _legend_above(figure)
        return svg.to_svg(figure, slug, label)


def look(place: int) -> tuple[str, object]:
    """Colour and dash of a line by its place; the first six differ in colour."""
    return COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]


def scatter(
    groups: Mapping[str, tuple[Floats, Floats]],
    slug: str,
    label: str,
    *,
    axis_labels: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]],
    percent: tuple[bool, bool] = (False, False),
    diagonal: bool = False,
) -> str:
    """Points of several groups, in a colour and a shape each.

    Args:
        groups: name to (x, y); each is thinned by the same factor, so that shares stay true.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
        axis_labels: of x and of y.
        limits: of x and of y.
        percent: whether x, and y, are shares.
        diagonal: draw the line on which both are the same.
    """
    with svg.drawing():
        figure, axes = _tall_enough(list(groups))
        every = sum(len(x) for x, _ in groups.values())
        for place, (name, (x, y)) in enumerate(groups.items()):
            most = max(1, math.ceil(MOST_POINTS * len(x) / max(every, 1)))
            x, y = thinned(x, y, most)
            axes.plot(
                x,
                y,
                "os^D"[place % 4],
                color=(svg.FIRST, svg.GAP, svg.THIRD, svg.MUTED)[place % 4],
                alpha=0.5,
                markersize=3.2,
                markeredgewidth=0,
                label=_folded(name),
            )
        if diagonal:
            axes.plot([0, 1], [0, 1], color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=limits[0], ylim=limits[1], xlabel=axis_labels[0], ylabel=axis_labels[1])
        for axis, is_share in zip((axes.xaxis, axes.yaxis), percent, strict=True):
            if is_share:
                axis.set_major_formatter(PercentFormatter(1, decimals=0))
        _legend_above(figure)
        return svg.to_svg(figure, slug, label)


def histograms(
    values: Mapping[str, Floats], limits: tuple[float, float], slug: str, label: str
) -> str:
    """Up to four samples of energies as outlines of shares, a dashed line at each median.

    Args:
        values: name in the legend to the sample; what is outside `limits` is left out.
        limits: of the axis.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
    """
    with svg.drawing():
        figure, axes = _tall_enough(list(values))
        edges = np.linspace(*limits, 41)
        for place, (name, sample) in enumerate(list(values.items())[:MOST_GROUPS]):
            if not len(sample):
                continue
            share, _ = np.histogram(sample, edges)
            height = share / len(sample)
            color, _dash = look(place)
            axes.stairs(height, edges, color=color, label=_folded(name), linewidth=1.2)
            axes.stairs(height, edges, color=color, alpha=0.15, fill=True)
            axes.axvline(float(np.median(sample)), color=color, linewidth=1, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlabel="Energy", ylabel="Share of texts", xlim=limits)
        _legend_above(figure)
        return svg.to_svg(figure, slug, label)


def binned(
    x: Floats,
    y: Floats,
    low: Floats,
    high: Floats,
    slug: str,
    label: str,
    *,
    axis_labels: tuple[str, str],
    as_percent: bool = True,
) -> str:
    """A value in each bin with the interval of each.

    Args:
        x: middle of each bin.
        y: the value there.
        low: lower end of its interval.
        high: upper end.
        slug: see `svg.to_svg`.
        label: see `svg.to_svg`.
        axis_labels: of x and of y.
        as_percent: y is a share.
    """
    with svg.drawing():
        figure, axes = svg.panel((4.2, 3.44))
        reach = np.maximum(np.stack([y - low, high - y]), 0)
        axes.errorbar(
            x, y, yerr=reach, color=svg.FIRST, marker="o", markersize=3.5, elinewidth=1, capsize=0
        )
        if as_percent:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
        return svg.to_svg(figure, slug, label)


def _tall_enough(names: Sequence[str]) -> tuple[Figure, Axes]:
    """A panel whose axes keep their height, however many names stand above them."""
    rows = sum(_folded(name).count("\n") + 1 for name in names)
    return svg.panel((4.2, 3.1 + 0.17 * rows))


def _folded(name: str) -> str:
    # A name that begins with an underscore would be hidden from the legend.
    text = "\n".join(textwrap.wrap(name, LEGEND_WIDTH)) or "-"
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def _legend_above(figure: Figure) -> None:
    legend = figure.legend(
        loc="outside upper left", ncols=1, handlelength=1.8, labelspacing=0.25, markerscale=1.6
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
