"""A table as data: drawn on the page, and written as CSV, Markdown and LaTeX.

The page, Markdown and LaTeX show rounded figures with their intervals in one cell; the CSV has the
unrounded numbers, a column for each.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from calib_ebm.report.blocks import Cell, Table, row
from calib_ebm.report.numbers import MINUS, NOTHING, decimals, interval, p_value, percent


@dataclass(frozen=True)
class Figure:
    """A number with its interval, and what belongs beside it."""

    value: float
    low: float
    high: float
    unit: str = ""
    """"%", "points" of it, or another; shares are kept as shares."""
    spread: float | None = None
    """Standard deviation over seeds."""
    change: Figure | None = None
    """Difference to the baseline, in pairs."""
    floor: float | None = None
    floor_p: float | None = None
    best: bool = False
    """Better than the second, and the interval of the difference in pairs says so."""

    def _write(self, value: float) -> str:
        if self.unit in ("%", "points"):
            return percent(value) if self.unit == "%" else percent(value).removesuffix("%")
        return decimals(value)

    @property
    def text(self) -> str:
        """The value."""
        return self._write(self.value)

    @property
    def interval(self) -> str:
        """`[low, high]`, a percentage's sign left out."""
        return interval(self.low, self.high, self.unit)

    @property
    def signed(self) -> str:
        """The value with its sign, and the interval.

        >>> Figure(0.1, 0.05, 0.25, "points").signed
        '+10.0 [5.0, 25.0]'
        """
        sign = "+" if self.value > 0 else ""
        return f"{sign}{self.text} {self.interval}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands underneath, a line each."""
        lines = []
        if self.spread is not None:
            lines.append(f"± {self._write(self.spread)} over seeds")
        if self.change is not None:
            lines.append(f"Δ {self.change.signed}")
        if self.floor is not None:
            chance = "" if self.floor_p is None else f", {p_value(self.floor_p)}"
            lines.append(f"floor {self._write(self.floor)}{chance}")
        return tuple(lines)

    def numbers(self) -> dict[str, float | bool | None]:
        """Everything under a short name, for the CSV."""
        change = self.change
        return {
            "": self.value,
            "low": self.low,
            "high": self.high,
            "spread": self.spread,
            "change": None if change is None else change.value,
            "change low": None if change is None else change.low,
            "change high": None if change is None else change.high,
            "floor": self.floor,
            "floor p": self.floor_p,
            "best": self.best or None,
        }


@dataclass(frozen=True)
class Amount:
    """What something cost: whole units, with the spread over runs."""

    value: float
    spread: float | None = None
    best: bool = False

    @property
    def text(self) -> str:
        """The value."""
        return f"{self.value:,.0f}"

    @property
    def interval(self) -> str:
        """The spread, where it is known."""
        return "" if self.spread is None else f"± {self.spread:,.0f}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing stands underneath."""
        return ()

    def numbers(self) -> dict[str, float | bool | None]:
        """Everything under a short name, for the CSV."""
        return {"": self.value, "spread": self.spread}


Entry = Figure | Amount | str | int | float | None


@dataclass(frozen=True)
class Sheet:
    """A table with a name for its files."""

    slug: str
    """Of small letters, digits and hyphens."""
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    about: str = ""
    """How to read it: said once on the page, and with the caption in the files."""

    @property
    def whole_caption(self) -> str:
        """The caption of a table that stands alone."""
        return f"{self.caption} {self.about}".rstrip()

    def block(self) -> Table:
        """For the page."""
        rows = tuple(row(*(_cell(entry) for entry in entries)) for entries in self.rows)
        words = 0
        while words < len(self.head) and all(isinstance(each[words], str) for each in self.rows):
            words += 1
        return Table(self.caption, self.head, rows, narrow="fold", words=words, many=True)

    def csv(self) -> str:
        """The unrounded numbers; a text that a spreadsheet would run begins with an apostrophe."""
        columns = list(self._columns())
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([_harmless(title) for title, _ in columns])
        for entries in self.rows:
            writer.writerow([_plain(value(entries)) for _, value in columns])
        return out.getvalue()

    def _columns(self) -> Iterator[tuple[str, Callable[[tuple[Entry, ...]], object]]]:
        """Titles of the CSV's columns, and how each is taken from a row."""
        for at, title in enumerate(self.head):
            figures = [
                one for entries in self.rows if isinstance(one := entries[at], Figure | Amount)
            ]
            if not figures:
                yield title, lambda entries, at=at: entries[at]  # type: ignore[misc]
                continue
            names = figures[0].numbers()
            for name in names:
                if all(figure.numbers()[name] is None for figure in figures):
                    continue
                yield (
                    f"{title} {name}".rstrip(),
                    lambda entries, at=at, name=name: _number_of(entries[at], name),  # type: ignore[misc]
                )

    def markdown(self) -> str:
        """A table of GitHub's Markdown under its caption."""
        lines = [_md(self.whole_caption), "", "| " + " | ".join(map(_md, self.head)) + " |"]
        lines.append("|" + "---|" * len(self.head))
        for entries in self.rows:
            cells = (_in_line(entry, _md, "**{}**") for entry in entries)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A tabular under its caption; it needs no package."""
        lines = [
            r"\begin{table}",
            rf"\caption{{{_tex(self.whole_caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
            r"\hline",
            " & ".join(map(_tex, self.head)) + r" \\",
            r"\hline",
        ]
        for entries in self.rows:
            cells = (_in_line(entry, _tex, r"\textbf{{{}}}") for entry in entries)
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}"]) + "\n"


def _cell(entry: Entry) -> Cell:
    if isinstance(entry, Figure | Amount):
        return Cell(entry.text, entry.interval, "\n".join(entry.notes), strong=entry.best)
    return Cell(_shown(entry))


def _shown(entry: str | float | int | None) -> str:
    if entry is None:
        return NOTHING
    if isinstance(entry, float):
        return decimals(entry)
    return f"{entry:,}" if isinstance(entry, int) else entry


def _in_line(entry: Entry, escape: Callable[[str], str], strong: str) -> str:
    if not isinstance(entry, Figure | Amount):
        return escape(_shown(entry))
    value = escape(entry.text)
    value = strong.format(value) if entry.best else value
    return f"{value} {escape('; '.join([entry.interval, *entry.notes]))}".rstrip()


def _number_of(entry: Entry, name: str) -> object:
    if isinstance(entry, Figure | Amount):
        return entry.numbers()[name]
    return None if name else entry


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else _harmless(str(value))


def _harmless(text: str) -> str:
    """Spreadsheets run a cell that begins like a formula, whoever wrote it."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _md(text: str) -> str:
    r"""A text that Markdown shows as it is, in one line.

    >>> print(_md("<b>|a_b|"))
    &lt;b&gt;\|a\_b\|
    """
    text = re.sub(r"([\\`*_\[\]|#~!$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"&(?=[\w#])", "&amp;", text).replace("<", "&lt;").replace(">", "&gt;")


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    MINUS: "$-$",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    NOTHING: "--",
}


def _tex(text: str) -> str:
    r"""A text that LaTeX sets as it is, in one line.

    >>> _tex("sharp_hidden, 5% of {a}")
    'sharp\\_hidden, 5\\% of \\{a\\}'
    """
    return "".join(_TEX.get(sign, sign) for sign in " ".join(text.split()))
