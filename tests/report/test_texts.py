from __future__ import annotations

from pathlib import Path

import pytest

from calib_ebm.errors import InputError
from calib_ebm.report.texts import FILE, LONGEST, PAIR, read_texts, shortened, write_texts
from calib_ebm.shapes import Example


def test_what_was_written_is_read(tmp_path: Path, nasty: str) -> None:
    write_texts(
        tmp_path,
        [Example("dev-1", nasty, None, 0), Example("dev-2", "first\u2028part", "second", 1)],
    )
    assert read_texts(tmp_path) == {"dev-1": nasty, "dev-2": f"first\u2028part{PAIR}second"}


def test_what_utf_8_cannot_hold_becomes_a_question_mark(tmp_path: Path) -> None:
    write_texts(tmp_path, [Example("a", "half \ud800 of a pair", None, 0)])
    assert read_texts(tmp_path) == {"a": "half ? of a pair"}


def test_without_the_file_there_are_no_texts_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_texts(tmp_path) == {}
    (tmp_path / FILE).write_bytes(b"no parquet")
    with pytest.raises(InputError, match=FILE):
        read_texts(tmp_path)


def test_long_texts_are_cut_and_others_are_not() -> None:
    assert shortened("x" * LONGEST) == "x" * LONGEST
    cut = shortened("x" * (LONGEST + 1))
    assert len(cut) == LONGEST and cut.endswith("…")
