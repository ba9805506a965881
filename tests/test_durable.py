"""Files that are whole or absent."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from calib_ebm import durable
from calib_ebm.durable import json_bytes, replacing, write_json, write_text, write_whole


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    write_text(path, "old")

    def half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_an_error_of_writing_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as raised:
        write_whole(tmp_path / "data", b"content")
    assert raised.value.filename == str(tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_goes_with_the_next_file_of_that_name(tmp_path: Path) -> None:
    name = "a[1]"  # which a pattern would read otherwise
    (tmp_path / f".{name}.99999.tmp").write_bytes(b"hal")
    (tmp_path / ".other.99999.tmp").write_bytes(b"of another file")
    write_whole(tmp_path / name, b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.99999.tmp", name]


def test_json_holds_what_json_can(tmp_path: Path) -> None:
    value = {1: np.float64(0.5), "n": np.int64(3), "b": np.bool_(True), "x": (math.nan, math.inf)}
    write_json(tmp_path / "value.json", value)
    content = (tmp_path / "value.json").read_bytes()
    assert content == json_bytes(value)
    assert json.loads(content) == {"1": 0.5, "n": 3, "b": True, "x": [None, None]}


def test_a_lone_surrogate_is_written_as_a_question_mark(tmp_path: Path) -> None:
    write_text(tmp_path / "page", "a\ud800b")
    assert (tmp_path / "page").read_text() == "a?b"
