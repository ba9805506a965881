"""texts.parquet: the reported texts as they were written, so that a page can show some of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from calib_ebm.report.columns import read_columns, write_columns
from calib_ebm.shapes import Example

FILE = "texts.parquet"
PAIR = " \N{PILCROW SIGN} "
"""Between the two texts of a pair."""
LONGEST = 300
"""Characters of a text that a page shows."""


def write_texts(folder: Path, examples: Iterable[Example]) -> None:
    """Write texts.parquet: id and text, and the second text of a pair."""
    kept = tuple(examples)
    columns: dict[str, Any] = {
        "id": [example.id for example in kept],
        "text": [_writable(example.text) for example in kept],
        "text_pair": [
            None if example.text_pair is None else _writable(example.text_pair) for example in kept
        ],
    }
    write_columns(folder / FILE, columns)


def read_texts(folder: Path) -> dict[str, str]:
    """Read texts.parquet: id to text, a pair as one; empty where there is no such file.

    Raises:
        InputError: it is not the table it should be.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    columns = read_columns(path, ("id", "text"), optional=("text_pair",))
    rows = zip(columns["id"], columns["text"], columns["text_pair"], strict=True)
    return {one: text if pair is None else f"{text}{PAIR}{pair}" for one, text, pair in rows}


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text's beginning, with an ellipsis where something was cut.

    >>> shortened("a long text", 7), shortened("short", 7)
    ('a long…', 'short')
    """
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _writable(text: str) -> str:
    """Lone surrogates, which UTF-8 cannot hold, become question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
