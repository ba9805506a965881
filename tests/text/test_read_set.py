"""Further labelled texts for a known task: `evaluate data=...`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calib_ebm.errors import InputError
from calib_ebm.text.files import read_set

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
