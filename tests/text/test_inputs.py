"""Texts to be scored: the same rows from four kinds of files, told apart by what they hold."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from calib_ebm.errors import InputError
from calib_ebm.text.inputs import Input, InputRow, digest_of, survey, windows

ROWS: list[dict[str, Any]] = [
    {"id": "a", "body": " A film\u2028with marks ", "other": "one"},
    {"id": "b", "body": "", "other": "two"},
    {"id": "c", "body": 'It\'s "fine"', "other": "  "},
]


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the ending says."""
    names = list(rows[0])
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        lines = [names, *([str(v) for v in row.values()] for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([names, *(row.values() for row in rows)])
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_row_of_every_kind_in_order_and_none_dropped(ending: str, tmp_path: Path) -> None:
    source = Input(save(tmp_path / f"new.{ending}", ROWS))
    assert source.names() == ["id", "body", "other"]
    first = {"jsonl": 1, "parquet": 1}.get(ending, 2)
    assert list(source.rows("body", "other", ["other", "id"])) == [
        InputRow(first, "A film\u2028with marks", "one", ("one", "a")),
        InputRow(first + 1, "", "two", ("two", "b")),
        InputRow(first + 2, 'It\'s "fine"', "", ("  ", "c")),
    ]
    assert [row.is_empty for row in source.rows("body")] == [False, True, False]
    assert [row.is_empty for row in source.rows("body", "other")] == [False, True, True]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_column_that_is_not_there_is_named_and_those_that_are(
    ending: str, tmp_path: Path
) -> None:
    source = Input(save(tmp_path / f"new.{ending}", ROWS))
    for words in (("text",), ("body", "pair"), ("body", None, ["stars"])):
        with pytest.raises(InputError, match="is not there") as refused:
            list(source.rows(*words))  # type: ignore[arg-type]
        assert "id, body, other" in refused.value.allowed
        said = str(refused.value)
        assert "task." not in said and ("keep" in said) == (len(words) == 3)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", "text,n\nfine,1\nbad,2,3\n", "line 3"),
        ("a.csv", 'text\nfine\n"open\n', "line 3"),
        ("a.tsv", "text\tn\nfine\t1\nbad\n", "line 3"),
        ("a.jsonl", '{"text": "fine"}\n{"text": \n', "line 2"),
        ("a.jsonl", '{"text": "fine"}\n{"text": 7}\n', "line 2"),
        ("a.csv", b"text\nfine\n\xff\n", "line 3"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_its_line(
    name: str, content: str | bytes, place: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        survey(Input(path).rows("text"), (), 10)
    assert place in refused.value.given and "task" not in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere.csv", "folder.csv", "new.xlsx"])
def test_what_is_no_file_of_texts_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "new.xlsx").touch()
    with pytest.raises(InputError, match="input="):
        Input(tmp_path / name)


def test_another_separator_is_read_and_a_wrong_one_is_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("id;text\n1;fine\n")
    assert [row.text for row in Input(path, ";").rows("text")] == ["fine"]
    assert Input(path, ";").names() == ["id", "text"]
    with pytest.raises(InputError, match="separator seems to be ';': see delimiter"):
        list(Input(path).rows("text"))


# ------------------------------------------------------------------------------------ the survey


def made_up(*kept: tuple[Any, ...], text: str = "x") -> list[InputRow]:
    return [InputRow(line, text, None, cells) for line, cells in enumerate(kept, start=2)]


def test_what_columns_hold_is_found_over_all_rows() -> None:
    found = survey(
        made_up(
            ("a", 1, 1.5, None, True, 1, [1], 2**70),
            (None, 2, None, None, False, 1.5, {"b": 2}, 1),
        ),
        ["str", "int", "float", "none", "bool", "mixed", "nested", "huge"],
        size=1,
    )
    kinds = ["string", "int", "float", "string", "bool", "json", "json", "json"]
    assert list(found.kinds.values()) == kinds
    assert (found.rows, found.empty) == (2, 0)


def test_empty_texts_are_counted_and_the_first_ones_named() -> None:
    found = survey([*made_up((), ()), *made_up(*[()] * 9, text="")], (), 4)
    assert (found.rows, found.empty, found.first_empty) == (11, 9, [2, 3, 4, 5, 6])


def test_windows_hold_all_rows_once() -> None:
    rows = made_up(*[()] * 7)
    assert [len(window) for window in windows(rows, 3)] == [3, 3, 1]
    assert [row for window in windows(rows, 3) for row in window] == rows
    assert list(windows([], 3)) == []


cells = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
row_s = st.builds(
    InputRow,
    st.integers(1, 99),
    st.text(max_size=4),
    st.none() | st.text(max_size=4),
    st.tuples(cells),
)


@given(st.lists(row_s, max_size=4), st.lists(row_s, max_size=4))
def test_digests_are_equal_for_equal_rows_alone(one: list[InputRow], other: list[InputRow]) -> None:
    def contents(rows: list[InputRow]) -> list[str]:
        return [repr(row[1:]) for row in rows]  # 1 and 1.0 and True are not the same cell

    assert (digest_of(one) == digest_of(other)) == (contents(one) == contents(other))
    # Where the file has them does not matter.
    assert digest_of([row._replace(number=1) for row in one]) == digest_of(one)


def test_the_digest_of_all_is_of_every_row() -> None:
    def digest(rows: Iterator[InputRow] | list[InputRow]) -> str:
        return survey(rows, ["n"], 2).digest

    rows = made_up((1,), (2,), (3,))
    assert digest(rows) == digest(iter(rows))
    assert digest(rows) != digest(rows[:2])
    assert digest(rows) != digest([*rows[:2], rows[2]._replace(kept=(4,))])
    assert digest(rows) != digest([rows[1], rows[0], rows[2]])
