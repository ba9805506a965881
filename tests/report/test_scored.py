"""Tables of scores: what was kept comes back as it was, in every kind of file, also in pieces."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from calib_ebm.errors import InputError
from calib_ebm.report.foreign import TableColumns, read_foreign
from calib_ebm.report.parts import MissingPart, Part, Parts, digest_of_file, key_of
from calib_ebm.report.scored import ENDINGS, ScoredColumns, ending_of, table_writer

KINDS = {"id": "string", "n": "int", "any": "json"}
COLUMNS = ScoredColumns(KINDS, ("bad", "good"), has_energy=True)
KEPT: list[tuple[Any, ...]] = [('a "b", c', 1, [1, {"x": "ä"}]), ("", None, None), ("c", -3, 1.5)]
PROBS = np.array([[0.25, 0.75], [1.0, 0.0]])
ENERGY = np.array([-1.5, 2.0])


def a_table(columns: ScoredColumns = COLUMNS) -> pa.Table:
    """Three rows, of which the second has no scores."""
    return columns.table(KEPT, [0, 2], PROBS, ENERGY if columns.has_energy else None)


def written(path: Path, pieces: list[pa.Table]) -> Path:
    with table_writer(path, path.suffix, COLUMNS.schema(), COLUMNS.as_json) as write:
        for piece in pieces:
            write(piece)
    return path


def test_rows_without_a_text_keep_their_place_and_have_no_scores() -> None:
    first, second, third = a_table().to_pylist()
    assert first == {
        "id": 'a "b", c',
        "n": 1,
        "any": '[1, {"x": "ä"}]',
        "predicted": "good",
        "confidence": 0.75,
        "prob_bad": 0.25,
        "prob_good": 0.75,
        "energy": -1.5,
    }
    assert second == dict.fromkeys(first, None) | {"id": ""}
    assert (third["predicted"], third["confidence"], third["energy"]) == ("bad", 1.0, 2.0)
    none = COLUMNS.table(KEPT, [], np.zeros((0, 2)), np.zeros(0))
    assert [row["predicted"] for row in none.to_pylist()] == [None] * 3
    assert none.schema == a_table().schema


def test_without_an_energy_there_is_no_column_of_it() -> None:
    columns = ScoredColumns(KINDS, ("bad", "good"), has_energy=False)
    assert "energy" not in a_table(columns).column_names
    assert a_table(columns).num_columns == a_table().num_columns - 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_pieces_are_the_same_file_as_the_whole(ending: str, tmp_path: Path) -> None:
    one = written(tmp_path / f"one{ending}", [a_table(), a_table()])
    two = written(tmp_path / f"two{ending}", [pa.concat_tables([a_table(), a_table()])])
    if ending == ".parquet":  # row groups are the pieces
        assert parquet.read_table(one) == parquet.read_table(two)
    else:
        assert one.read_bytes() == two.read_bytes()
    assert digest_of_file(one) == digest_of_file(
        written(tmp_path / f"again{ending}", [a_table(), a_table()])
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = a_table().to_pylist()
    assert parquet.read_table(written(tmp_path / "a.parquet", [a_table()])).to_pylist() == rows
    with written(tmp_path / "a.csv", [a_table()]).open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert first["id"] == 'a "b", c' and float(first["prob_good"]) == 0.75
    assert [second[name] for name in ("n", "any", "predicted", "energy")] == [""] * 4
    assert (third["n"], third["any"], third["predicted"]) == ("-3", "1.5", "bad")
    lines = written(tmp_path / "a.jsonl", [a_table()]).read_text().splitlines()
    # What was JSON is JSON again, not a word that holds some.
    assert [json.loads(line)["any"] for line in lines] == [[1, {"x": "ä"}], None, 1.5]
    assert json.loads(lines[1])["energy"] is None
    plain = written(tmp_path / "a.tsv", [a_table()]).read_text().splitlines()
    assert plain[0].split("\t") == a_table().column_names
    assert plain[1].split("\t")[:2] == ['a "b", c', "1"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_evaluate_reads_the_table_as_it_is(ending: str, tmp_path: Path) -> None:
    columns = ScoredColumns({"id": "string", "label": "string"}, ("bad", "good"), has_energy=True)
    table = columns.table([("a", "good"), ("b", "bad")], [0, 1], PROBS, ENERGY)
    path = tmp_path / f"scored{ending}"
    with table_writer(path, ending, columns.schema(), columns.as_json) as write:
        write(table)
    read = read_foreign(path, TableColumns(), ())
    assert read.labels == ("bad", "good") and read.table.ids == ("a", "b")
    assert read.table.labels_N.tolist() == [1, 0]
    np.testing.assert_allclose(np.exp(read.table.logits_NC), PROBS, atol=1e-11)
    assert read.table.energy_N is not None and read.table.energy_N.tolist() == [-1.5, 2.0]


def test_a_kept_column_may_not_have_the_name_of_a_score() -> None:
    for name in ("predicted", "energy", "prob_bad"):
        with pytest.raises(InputError, match=f"keep has the column '{name}'"):
            ScoredColumns({name: "string"}, ("bad", "good"), has_energy=True)
    assert ScoredColumns({"energy": "string"}, ("bad", "good"), has_energy=False)


def test_a_type_of_the_input_s_own_is_kept() -> None:
    columns = ScoredColumns({"at": "json"}, ("a", "b"), False, {"at": pa.date32()})
    from datetime import date

    table = columns.table([(date(2020, 2, 3),)], [0], PROBS[:1], None)
    assert table.schema.field("at").type == pa.date32() and columns.as_json == frozenset()


@pytest.mark.parametrize("name", ["scores", "scores.xlsx", "scores.json"])
def test_an_ending_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="ending") as refused:
        ending_of(Path(name))
    assert ".parquet" in refused.value.allowed
    assert ending_of(Path("scores.CSV")) == ".csv"


# ------------------------------------------------------------------------------------- the parts


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    found = Parts(tmp_path / "scored.csv")
    found.begin({"model": "m"}, empty=False)
    return found


def test_a_part_is_known_by_its_key(parts: Parts) -> None:
    key, other = key_of("some rows"), key_of("other rows")
    assert parts.get(3, key) is None and not parts.has(3, key) and parts.numbers() == set()
    parts.put(3, key, Part(a_table(), 7))
    found = parts.get(3, key)
    assert found is not None and found.cut == 7 and found.rows == a_table()
    assert parts.has(3, key) and not parts.has(3, other) and parts.numbers() == {3}
    assert parts.get(3, other) is None and parts.get(2, key) is None


def test_a_damaged_part_is_none(parts: Parts) -> None:
    key = key_of("rows")
    parts.put(0, key, Part(a_table(), 0))
    path = parts.folder / "part-00000000.arrow"
    whole = path.read_bytes()
    for at in (0, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert parts.get(0, key) is None, at
    for size in (0, 10, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert parts.get(0, key) is None, size
    path.write_bytes(whole)  # the control
    assert parts.get(0, key) is not None


def test_parts_are_joined_in_order_and_a_missing_one_is_named(parts: Parts) -> None:
    keys = [key_of(number) for number in range(5)]
    for number in (4, 0, 2, 1, 3):
        rows = a_table().set_column(1, "n", pa.array([number] * 3, pa.int64()))
        parts.put(number, keys[number], Part(rows, number))
    written: list[int] = []
    cuts: list[int] = []
    parts.join(
        keys,
        lambda table: written.extend(table["n"].to_pylist()),
        lambda part: cuts.append(part.cut),
    )
    assert written == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert cuts == [0, 1, 2, 3, 4]
    with pytest.raises(MissingPart) as missing:
        parts.join([*keys, key_of("more")], lambda _: None)
    assert missing.value.args == (5,)


def test_a_plan_is_taken_up_or_begun_anew(parts: Parts) -> None:
    parts.put(0, key_of(0), Part(a_table(), 0))
    assert parts.plan() == {"model": "m"}
    parts.begin({"model": "m", "input": "i"}, empty=False)
    assert parts.plan() == {"model": "m", "input": "i"} and parts.numbers() == {0}
    (parts.folder / "plan.json").write_text("{")
    assert parts.plan() is None
    parts.begin({"model": "other"}, empty=True)
    assert parts.plan() == {"model": "other"} and parts.numbers() == set()
    parts.remove()
    assert not parts.folder.exists()
