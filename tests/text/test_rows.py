from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from calib_ebm.errors import InputError
from calib_ebm.text.rows import Reading, Row, kept, to_examples, tsv_lines, utf8_lines

Write = Callable[..., Path]


def test_lines_end_at_newlines_only(write: Write) -> None:
    text = "one\u2028still one\x85and one\x0conce\rmore\ntwo\r\nthree"
    assert list(utf8_lines(write("a", text))) == [
        "one\u2028still one\x85and one\x0conce\rmore\n",
        "two\r\n",
        "three",
    ]
    assert len(text.splitlines()) > 3  # what must not be used


def test_a_byte_order_mark_is_dropped_from_the_start_only(write: Write) -> None:
    assert list(utf8_lines(write("a", "\ufeffa\n\ufeffb\n"))) == ["a\n", "\ufeffb\n"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"fine\ncaf\xe9\n", r"a, line 2: byte 4 of the line \(0xe9\) is not UTF-8"),
        ("a\tb\n".encode("utf-16"), r"a, line 1: byte 1 of the line \(0xff\)"),
    ],
)
def test_not_utf8_names_line_and_byte(write: Write, content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(utf8_lines(write("a", content)))


def test_quotes_are_letters_and_blank_lines_are_skipped(write: Write) -> None:
    path = write("a.tsv", '"open\tb\r\n\r\n\n"c"\t"d\n')
    assert list(tsv_lines(path)) == [(1, ['"open', "b"]), (4, ['"c"', '"d'])]


def test_dropping_an_empty_text_does_not_shift_labels() -> None:
    reading = Reading("dev", "a.tsv")
    texts = [("a", "x"), (" \t", "x"), ("b", " "), (" c\u00a0", "y ")]
    rows = [Row(i + 1, f"dev-{i}", text, pair, i) for i, (text, pair) in enumerate(texts)]
    examples = to_examples(kept(rows, reading), lambda row: row.label, reading)
    assert [tuple(e) for e in examples] == [("dev-0", "a", "x", 0), ("dev-3", "c", "y", 3)]
    assert reading.notes() == (
        "dev: 2 row(s) of a.tsv have an empty text and were dropped with their labels (line 2, 3).",
    )


def test_a_note_does_not_list_thousands_of_lines() -> None:
    reading = Reading("dev", "a.tsv", "row")
    for number in range(1, 2001):
        reading.leave_out("are odd", number)
    assert reading.notes() == ("dev: 2000 row(s) of a.tsv are odd (row 1, 2, 3, 4, 5, ...).",)


def test_an_id_that_occurs_twice_is_refused() -> None:
    rows = [Row(2, "dev-7", "a", None, 0), Row(3, "dev-8", "b", None, 0)]
    reading = Reading("dev", "a.csv")
    assert len(to_examples(rows, lambda row: 0, reading)) == 2
    again = Row(9, "dev-7", "c", None, 0)
    with pytest.raises(InputError, match=r"a\.csv, line 9: the id 'dev-7' is that of line 2"):
        to_examples([*rows, again], lambda row: 0, reading)
