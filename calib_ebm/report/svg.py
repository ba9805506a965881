"""Matplotlib figures as SVG inside a page, in the page's own colours and type.

A figure is drawn with stand-in colours, which become CSS variables here, so that one drawing is
right in light and in dark. Text stays text: it can be read aloud, searched and selected.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins: colours that nothing else uses, and the variable of page.css each one becomes.
INK = "#010101"
MUTED = "#010102"
RULE = "#010103"
FIRST = "#010104"
SECOND = "#010105"
GAP = "#010106"
THIRD = "#010107"
FOURTH = "#010108"
FIFTH = "#010109"
SIXTH = "#01010a"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    GAP: "var(--gap)",
    THIRD: "var(--third)",
    FOURTH: "var(--fourth)",
    FIFTH: "var(--fifth)",
    SIXTH: "var(--sixth)",
}

WIDE = (4.2, 3.8)
"""Inches of a panel that stands in twos; text of 9 points is then readable at a phone's width."""
SMALL = (3.25, 2.2)
"""Inches of a panel that stands in threes."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "calib_ebm",
    # Class names and the like come from data: a dollar sign in them is a dollar sign.
    "text.parse_math": False,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "path.simplify": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw within this: matplotlib's own settings are as before afterwards, whatever they were."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def panel(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes and a faint grid."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    soft_grid(axes)
    return figure, axes


def soft_grid(axes: Axes) -> None:
    """Horizontal lines behind everything."""
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def to_svg(figure: Figure, slug: str, label: str) -> str:
    """The figure as an `<svg>` element for an HTML page.

    Args:
        figure: drawn within `drawing()`.
        slug: of letters and hyphens, unique on the page: ids inside the drawing begin with it.
        label: what the picture shows, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - it was written three lines above
    _without_metadata(root)
    for element in root.iter():
        _make_plain(element, slug)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode")


def _without_metadata(root: ET.Element) -> None:
    """Drop what matplotlib adds: metadata, and a style sheet that would rule the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            name = child.tag.rpartition("}")[2]
            if name in {"metadata", "style"}:
                parent.remove(child)


def _make_plain(element: ET.Element, slug: str) -> None:
    """HTML's SVG needs no namespaces; ids are made unique on the page, colours the page's."""
    element.tag = element.tag.rpartition("}")[2]
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        name = key.rpartition("}")[2]
        if name == "id":
            value = f"{slug}-{value}"
        elif name == "href":
            value = f"#{slug}-{value.removeprefix('#')}"
        elif name == "style":
            value = _page_style(value)
        element.set(name, value.replace("url(#", f"url(#{slug}-"))


def _page_style(style: str) -> str:
    for stand_in, variable in VARIABLES.items():
        style = style.replace(stand_in, variable)
    # The size stays, the family is the page's. Matplotlib writes two entries, or one: `font`.
    style = re.sub(r"font-family:[^;]*;?\s*", "", style)
    return re.sub(r"font:[^;]*?([\d.]+)px[^;]*", r"font-size: \1px", style)


def percent_decimals(ticks: Sequence[float] | np.ndarray) -> int:
    """Decimals that shares at an axis need as percentages, to say what they are.

    >>> percent_decimals([0, 0.05, 0.1]), percent_decimals([0, 0.025, 0.05])
    (0, 1)
    """
    percent = 100 * np.asarray(ticks, dtype=float)
    for decimals in range(4):
        if np.allclose(percent, percent.round(decimals), rtol=0, atol=1e-9):
            return decimals
    return 4
