"""Files of one's own, one and the same content in four formats, and what can be wrong with each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.files import read_own

Write = Callable[..., Path]
Node = Callable[..., dict[str, Any]]
Rows = list[dict[str, Any]]


def save(path: Path, rows: Rows) -> str:
    """Write rows as the ending says."""
    columns = list(rows[0])
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        cells = [columns, *([str(v) for v in row.values()] for row in rows)]
        path.write_text("".join("\t".join(row) + "\n" for row in cells))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


FORMATS = ("csv", "tsv", "jsonl", "parquet")
STARS: Rows = [
    {"review": 'It "works", fine', "other": "a", "stars": 10},
    {"review": "Mäßig\u2028gut", "other": "b", "stars": 9},
    {"review": "Bad", "other": "c", "stars": 1},
]


@pytest.mark.parametrize("source", FORMATS)
def test_the_same_content_in_every_format(source: str, node: Node, tmp_path: Path) -> None:
    path = save(tmp_path / f"train.{source}", STARS)
    dev = save(tmp_path / f"dev.{source}", STARS[::-1])
    columns = {"text": "review", "text_pair": "other", "label": "stars"}
    data = read_own(node(source, train=path, dev=dev, **columns))
    assert data.labels == ("1", "9", "10")
    assert data.train == (
        Example("train-0", 'It "works", fine', "a", 2),
        Example("train-1", "Mäßig\u2028gut", "b", 1),
        Example("train-2", "Bad", "c", 0),
    )
    assert [(e.id, e.label) for e in data.dev] == [("dev-0", 0), ("dev-1", 1), ("dev-2", 2)]
    assert data.notes == ()


@pytest.mark.parametrize("source", FORMATS)
def test_empty_texts_are_dropped_with_their_labels(source: str, node: Node, tmp_path: Path) -> None:
    texts = ["one", "", "two", "  ", "three"]
    labels = ["a", "never seen", "b", "b", "a"]
    rows = [{"text": t, "label": y} for t, y in zip(texts, labels, strict=True)]
    path = save(tmp_path / f"train.{source}", rows)
    dev = save(tmp_path / f"dev.{source}", rows)
    data = read_own(node(source, train=path, dev=dev))
    assert data.labels == ("a", "b")  # the dropped row's label is gone with it
    assert [(e.id, e.text, e.label) for e in data.dev] == [
        ("dev-0", "one", 0),
        ("dev-2", "two", 1),
        ("dev-4", "three", 0),
    ]
    place = "row 2, 4" if source == "parquet" else "line 2, 4" if source == "jsonl" else "line 3, 5"
    assert [note.split(":")[0] for note in data.notes] == ["train", "dev"]
    assert all("2 row(s)" in note and place in note for note in data.notes)


@pytest.mark.parametrize("source", FORMATS)
def test_a_missing_column_is_named_with_those_there(
    source: str, node: Node, tmp_path: Path
) -> None:
    path = save(tmp_path / f"train.{source}", STARS)
    with pytest.raises(InputError, match=r"column 'text' \(task\.text\) is not there") as error:
        read_own(node(source, train=path, label="stars"))
    assert "review, other, stars" in error.value.allowed
    with pytest.raises(InputError, match=r"'second' \(task\.text_pair\)"):
        read_own(node(source, train=path, text="review", label="stars", text_pair="second"))


@pytest.mark.parametrize("source", FORMATS)
def test_an_unknown_label_in_dev_names_file_and_line(
    source: str, node: Node, tmp_path: Path
) -> None:
    train = save(tmp_path / f"train.{source}", [{"text": x, "label": x} for x in "ab"])
    dev = save(tmp_path / f"dev.{source}", [{"text": x, "label": x} for x in "abc"])
    number = {"parquet": "row 3", "jsonl": "line 3"}.get(source, "line 4")
    with pytest.raises(InputError, match=rf"dev\.{source}, {number}: the label is 'c'") as error:
        read_own(node(source, train=train, dev=dev))
    assert error.value.allowed.endswith("a, b")
    assert len(read_own(node(source, train=train, dev=dev, labels=["c", "b", "a"])).dev) == 3


@pytest.mark.parametrize("source", FORMATS)
def test_a_text_without_a_label_is_refused(source: str, node: Node, tmp_path: Path) -> None:
    missing = "" if source in ("csv", "tsv") else None
    rows = [{"text": "x", "label": "a"}, {"text": "y", "label": missing}]
    with pytest.raises(InputError, match=r"(line|row) [23]: no label in 'label'"):
        read_own(node(source, train=save(tmp_path / f"t.{source}", rows)))


@pytest.mark.parametrize("source", FORMATS)
def test_own_ids_and_ids_that_occur_twice(source: str, node: Node, tmp_path: Path) -> None:
    rows = [{"text": x, "label": x, "key": i} for i, x in enumerate("abcdefgh", start=70)]
    train, dev = (save(tmp_path / f"{s}.{source}", rows[:n]) for s, n in (("t", 8), ("d", 2)))
    data = read_own(node(source, train=train, dev=dev, id="key"))
    assert [e.id for e in data.dev] == ["dev-70", "dev-71"]
    again = save(tmp_path / f"again.{source}", [*rows, rows[3]])
    with pytest.raises(InputError, match="id 'train-73' is that of"):
        read_own(node(source, train=again, dev=dev, id="key"))


@pytest.mark.parametrize("source", FORMATS)
def test_a_file_without_rows(source: str, node: Node, tmp_path: Path) -> None:
    path = tmp_path / f"t.{source}"
    if source == "parquet":
        parquet.write_table(pa.table({"text": pa.array([], pa.string()), "label": []}), path)
    else:
        path.write_text({"csv": "text,label\n", "tsv": "text\tlabel\n", "jsonl": "\n"}[source])
    with pytest.raises(InputError, match="holds no rows"):
        read_own(node(source, train=str(path)))


def test_numbers_and_their_spellings_are_one_label(node: Node, write: Write) -> None:
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": "1"}, {"text": "c", "label": 1.0}]
    lines += [{"text": "d", "label": 0}, {"text": "e", "label": "0.0"}]
    path = write("t.jsonl", "\n".join(json.dumps(line) for line in lines))
    for labels in (None, [0, 1], ["0", "1"], [0.0, 1.0]):
        data = read_own(node("jsonl", train=str(path), dev_fraction=1e-9, labels=labels))
        assert data.labels == ("0", "1")
        assert [e.label for e in data.train] == [1, 1, 1, 0, 0]


def test_given_labels_fix_the_order(node: Node, write: Write) -> None:
    path = write("t.csv", "text,label\nx,neg\ny,pos\n")
    given = read_own(node("csv", train=str(path), dev_fraction=1e-9, labels=["pos", "neg"]))
    found = read_own(node("csv", train=str(path), dev_fraction=1e-9))
    assert [e.label for e in given.train] == [1, 0]
    assert [e.label for e in found.train] == [0, 1]


def test_without_dev_a_part_of_train_is_held_out(node: Node, write: Write) -> None:
    path = write("t.csv", "text,label\n" + "".join(f"t{i % 150},{i % 2}\n" for i in range(200)))
    data = read_own(node("csv", train=str(path)))
    assert len(data.train) + len(data.dev) == 200
    assert 20 <= len(data.dev) <= 60
    assert not {e.text for e in data.train} & {e.text for e in data.dev}
    assert f"{len(data.dev)} of the 200 texts" in data.notes[0]
    assert len(read_own(node("csv", train=str(path), dev_fraction=0.5)).dev) > len(data.dev)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "much"])
def test_a_fraction_that_cannot_be(fraction: Any, node: Node, write: Write) -> None:
    path = write("t.csv", "text,label\nx,neg\ny,pos\n")
    with pytest.raises(InputError, match=rf"task\.dev_fraction is {fraction}"):
        read_own(node("csv", train=str(path), dev_fraction=fraction))


def test_csv_as_spreadsheets_write_it(node: Node, write: Write) -> None:
    content = '\ufefftext;label\r\n"two\r\nlines; and ""quotes""";1\r\n\r\n5" screen;0\r\n'
    path = write("t.csv", content)
    data = read_own(node("csv", train=str(path), delimiter=";", dev_fraction=1e-9))
    assert [e.text for e in data.train] == ['two\r\nlines; and "quotes"', '5" screen']
    with pytest.raises(InputError, match=r"The separator seems to be ';'"):
        read_own(node("csv", train=str(path)))


def test_csv_with_tabs_and_a_very_long_cell(node: Node, write: Write) -> None:
    before = csv.field_size_limit()
    long = "word " * 40_000
    assert len(long) > before
    path = write("t.txt", f'text\tlabel\n{long}\t1\n"a\tb"\t0\n')
    data = read_own(node("csv", train=str(path), delimiter="tab", dev_fraction=1e-9))
    assert [e.text for e in data.train] == [long.strip(), "a\tb"]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("delimiter", ["::", '"', "\n"])
def test_a_delimiter_that_cannot_be(delimiter: str, node: Node, write: Write) -> None:
    path = write("t.csv", "text,label\nx,neg\ny,pos\n")
    with pytest.raises(InputError, match=r"task\.delimiter is "):
        read_own(node("csv", train=str(path), delimiter=delimiter))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('fine,1\n"two\nlines",0\na,b,1\n', "line 5 has 3 columns"),
        ("fine,1\nalone\n", "line 3 has 1 columns"),
        ('fine,1\n"never closed,0\nbad,0\n', "line 3: the row that starts here cannot be read"),
        ('fine,1\n"he" said,0\n', "line 3: the row that starts here cannot be read"),
    ],
)
def test_csv_rows_that_cannot_be_told_apart(rows: str, says: str, node: Node, write: Write) -> None:
    path = write("t.csv", "text,label\n" + rows)
    with pytest.raises(InputError, match=rf"t\.csv, {says}"):
        read_own(node("csv", train=str(path)))


def test_tsv_rows_of_another_length(node: Node, write: Write) -> None:
    path = write("t.tsv", "text\tlabel\na\tb\t1\n")
    with pytest.raises(InputError, match=r"t\.tsv, line 2 has 3 columns[^$]*2 columns"):
        read_own(node("tsv", train=str(path)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "a", "label": }', "line 3 is not JSON"),
        ('["a", 1]', "line 3 is a JSON list"),
        ("[" * 100_000, "line 3 is not JSON"),
        ('{"text": "a"}', r"line 3: the column 'label' \(task\.label\) is not there"),
        ('{"text": 5, "label": 1}', r"line 3: column 'text' holds 5 \(int\)"),
        ('{"text": "a", "label": [1]}', "line 3: no label in 'label'"),
        ('{"text": "a", "label": NaN}', "line 3: no label in 'label'"),
        ('{"text": "\\ud800", "label": 1}', "line 3 is not JSON"),
    ],
)
def test_jsonl_lines_that_cannot_be_used(line: str, says: str, node: Node, write: Write) -> None:
    path = write("t.jsonl", '{"text": "a", "label": 0}\n\n' + line + "\n")
    with pytest.raises(InputError, match=rf"t\.jsonl, {says}"):
        read_own(node("jsonl", train=str(path)))


def test_parquet_of_other_types(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    words = pa.array(["no", "yes", "no"]).dictionary_encode()
    parquet.write_table(pa.table({"text": pa.array(["a", None, "b"]), "label": words}), path)
    with pytest.raises(InputError, match="only the label 'no'"):  # "yes" has no text
        read_own(node("parquet", train=str(path)))
    data = read_own(node("parquet", train=str(path), labels=["no", "yes"], dev_fraction=1e-9))
    assert [e.id for e in data.train] == ["train-0", "train-2"]
    parquet.write_table(pa.table({"text": [1, 2], "label": [1, 2]}), path)
    with pytest.raises(InputError, match=r"row 1: column 'text' holds 1 \(int\)"):
        read_own(node("parquet", train=str(path)))
    path.write_text("text,label\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_own(node("parquet", train=str(path)))


def test_parquet_is_read_over_batches(node: Node, tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 3} for i in range(2500)]
    path = save(tmp_path / "t.parquet", rows)
    train = read_own(node("parquet", train=path, dev_fraction=1e-9)).train
    assert [(e.id, e.text, e.label) for e in train] == [
        (f"train-{i}", f"t{i}", i % 3) for i in range(2500)
    ]


@pytest.mark.parametrize("source", FORMATS)
def test_files_that_are_not_there_or_not_of_the_kind(
    source: str, node: Node, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="was given no training file"):
        read_own(node(source))
    missing = tmp_path / f"none.{source}"
    with pytest.raises(InputError, match=r"task\.train=.*is not there"):
        read_own(node(source, train=str(missing)))
    with pytest.raises(InputError, match=r"task\.train=.*is a folder"):
        read_own(node(source, train=str(tmp_path)))
    good = save(tmp_path / f"t.{source}", STARS)
    with pytest.raises(InputError, match=r"task\.dev=.*is not there"):
        read_own(node(source, train=good, dev=str(missing)))
    with pytest.raises(InputError, match="are the same file"):
        read_own(node(source, train=good, dev=good))
    sheet = write("t.xlsx", "x")
    with pytest.raises(InputError, match=rf"ending \.xlsx[^$]*for {source}: \.{source}"):
        read_own(node(source, train=str(sheet)))
    other = "csv" if source != "csv" else "tsv"
    with pytest.raises(InputError, match=rf"Set task={other}\."):
        read_own(node(source, train=str(write(f"t.{other}", "x"))))


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl"])
def test_an_empty_file_and_one_that_is_not_utf8(source: str, node: Node, write: Write) -> None:
    with pytest.raises(InputError, match=r"is empty|holds no rows"):
        read_own(node(source, train=str(write(f"t.{source}", ""))))
    lines = {"csv": "text,label\na,", "tsv": "text\tlabel\na\t", "jsonl": '\n{"text": "'}
    path = write(f"t.{source}", lines[source].encode() + b"\xff\n")
    with pytest.raises(InputError, match=r"line 2: byte \d+ of the line \(0xff\) is not UTF-8"):
        read_own(node(source, train=str(path)))


def test_a_column_that_stands_there_twice(node: Node, write: Write) -> None:
    path = write("t.csv", "text,label,text\na,1,b\n")
    with pytest.raises(InputError, match=r"'text' \(task\.text\) is twice there"):
        read_own(node("csv", train=str(path)))
