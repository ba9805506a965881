"""What a page is made of: plain records that page.html knows how to draw.

They hold text as it came; escaping is the template's, once, for everything. The only ready
markup is that of a panel's drawing, which `svg.to_svg` wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Paragraph:
    """Prose."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Absent:
    """What stands in place of something that this run does not have, and why."""

    kind: ClassVar[str] = "absent"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Tile:
    """A figure to be seen first, with what it is and its interval."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Tiles:
    """A row of tiles."""

    kind: ClassVar[str] = "tiles"
    items: tuple[Tile, ...]


@dataclass(frozen=True)
class Cell:
    """A table's cell: the matter, a quieter part beside it, and one underneath."""

    text: str
    detail: str = ""
    note: str = ""
    strong: bool = False
    """In bold: the best, and known to be."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row."""

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    narrow: Literal["scroll", "fold", "stack"] = "scroll"
    """What becomes of it on a narrow screen: it scrolls in its own box; the row's name moves above
    its numbers (few columns); or each row becomes a stack of texts."""
    words: int = 1
    """Leading columns that hold words, and stand to the left; numbers stand to the right."""
    many: bool = False
    """Of many columns: their heads wrap, and nothing else does."""
    wide_first: bool = False
    """The first column holds long texts and takes half of the width."""


@dataclass(frozen=True)
class Facts:
    """Names with values."""

    kind: ClassVar[str] = "facts"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panel:
    """A drawing with its title above and what to see in it underneath."""

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Panels:
    """Drawings beside each other, as many as the width allows."""

    kind: ClassVar[str] = "panels"
    items: tuple[Panel, ...]
    width: Literal["wide", "small"] = "wide"
    """At most two in a row, or three."""
    aside: Facts | None = None
    """What to read beside them."""


@dataclass(frozen=True)
class Code:
    """Something to type, as it is."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Details:
    """A long text, folded away."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str


Block = Paragraph | Absent | Bullets | Tiles | Table | Panels | Facts | Code | Details


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    slug: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """One self-contained page."""

    title: str
    kicker: str
    """A few words above the title."""
    summary: str
    """The plain sentence of what was found."""
    tiles: Tiles
    sections: tuple[Section, ...]


def row(*texts: str | Cell) -> tuple[Cell, ...]:
    """A row of a table, from plain texts and cells."""
    return tuple(Cell(text) if isinstance(text, str) else text for text in texts)
