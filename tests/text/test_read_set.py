"""Further labelled texts for a known task: `evaluate data=...`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calib_ebm.errors import InputError
from calib_ebm.text.files import read_set
from calib_ebm.text.other import read_other_task

COLUMNS = {"text": "sentence", "text_pair": None, "label": "label"}


def jsonl(path: Path, *labels: object) -> Path:
    rows = [{"sentence": f"text {i}", "label": label} for i, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_by_name_and_by_number_are_the_same(tmp_path: Path) -> None:
    named, _ = read_set(jsonl(tmp_path / "a.jsonl", "bad", "good"), COLUMNS, ("bad", "good"))
    numbered, _ = read_set(jsonl(tmp_path / "b.jsonl", 0, 1), COLUMNS, ("bad", "good"))
    assert [e.label for e in named] == [e.label for e in numbered] == [0, 1]


def test_names_that_are_numbers_are_names(tmp_path: Path) -> None:
    stars, _ = read_set(jsonl(tmp_path / "a.jsonl", 1, 2), COLUMNS, ("1", "2", "3"))
    assert [e.label for e in stars] == [0, 1]


def test_an_unknown_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the label is '7'"):
        read_set(jsonl(tmp_path / "a.jsonl", 0, 7), COLUMNS, ("bad", "good"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there"):
        read_set(tmp_path / "none.csv", COLUMNS, ("bad", "good"))


def test_a_file_may_have_no_labels(tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"sentence": "fine"}\n{"sentence": "awful"}\n')
    with pytest.raises(InputError, match="the column 'label'"):
        read_set(bare, COLUMNS, ("bad", "good"))
    examples, _ = read_set(bare, COLUMNS, ("bad", "good"), label_may_be_absent=True)
    assert [e.label for e in examples] == [-1, -1]
    for ending, text, labels in (
        ("csv", "sentence,label\nfine,-1\nawful,-1\n", [-1, -1]),
        ("tsv", "sentence\nfine\nawful\n", [-1, -1]),
        ("csv", "sentence,label\nfine,1\nawful,0\n", [1, 0]),
    ):
        path = tmp_path / f"x.{ending}"
        path.write_text(text)
        examples, _ = read_set(path, COLUMNS, ("bad", "good"), label_may_be_absent=True)
        assert [e.label for e in examples] == labels


def test_some_labels_and_some_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("sentence,label\nfine,1\nawful,\n")
    with pytest.raises(InputError, match="line 3: no label in 'label'"):
        read_set(path, COLUMNS, ("bad", "good"), label_may_be_absent=True)
    path.write_text("sentence,label\nfine,1\nawful,-1\n")
    with pytest.raises(InputError, match="line 3: the label is '-1'"):
        read_set(path, COLUMNS, ("bad", "good"), label_may_be_absent=True)


def test_labels_that_are_not_asked_for_are_not_looked_at(tmp_path: Path) -> None:
    columns = {**COLUMNS, "label": None}
    other, _ = read_set(jsonl(tmp_path / "a.jsonl", "x", "y"), columns, (), setting="ood")
    assert [(e.id, e.label) for e in other] == [("ood-0", -1), ("ood-1", -1)]


def test_texts_of_another_task(tmp_path: Path) -> None:
    name, examples, _ = read_other_task(str(jsonl(tmp_path / "news.jsonl", 0, 1)), COLUMNS)
    assert name == "news" and {e.label for e in examples} == {-1}
    folder = tmp_path / "CoLA"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("gj04\t1\t\tShe left.\ngj04\t0\t*\tLeft she.\n")
    name, examples, _ = read_other_task(f"cola:{tmp_path}", COLUMNS)
    assert (name, [e.text for e in examples]) == ("cola", ["She left.", "Left she."])
    assert {e.label for e in examples} == {-1}
    for wrong in ("none.csv", "imdb:here", str(tmp_path)):
        with pytest.raises(InputError, match="ood="):
            read_other_task(wrong, COLUMNS)
