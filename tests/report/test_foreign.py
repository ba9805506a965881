"""Tables from anywhere: the same numbers from each kind of file, and each mistake named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_ebm.errors import InputError
from calib_ebm.report.foreign import SMALLEST, ForeignTable, TableColumns, read_foreign
from calib_ebm.report.predictions import write_predictions

PROBS = [[0.7, 0.3], [0.2, 0.8], [1.0, 0.0]]
HEADER = "key,p_bad,p_good,truth"
ROWS = ["a,0.7,0.3,bad", "b,0.2,0.8,good", "c,1.0,0.0,good"]
NAMED = TableColumns(probs=("p_*",), id="key", label="truth")


def csv(folder: Path, *rows: str, header: str = HEADER, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("\n".join((header, *(rows or ROWS))) + "\n")
    return path


def softmax(table: ForeignTable) -> np.ndarray[Any, Any]:
    return table.table.probs_NC().numpy()


def assert_same(found: ForeignTable) -> None:
    assert found.table.labels_N.tolist() == [0, 1, 1] and found.table.ids == ("a", "b", "c")
    np.testing.assert_allclose(softmax(found), PROBS, atol=2 * SMALLEST)
    assert found.labels == ("bad", "good") and not found.is_cut and found.table.energy_N is None


def test_each_kind_of_file_says_the_same(tmp_path: Path) -> None:
    assert_same(read_foreign(csv(tmp_path), NAMED, ()))
    (tmp_path / "t.tsv").write_text(csv(tmp_path).read_text().replace(",", "\t"))
    assert_same(read_foreign(tmp_path / "t.tsv", NAMED, ()))
    lines = [dict(zip(HEADER.split(","), ("a", 0.7, 0.3, "bad"), strict=True))]
    lines += [dict(zip(HEADER.split(","), ("b", 0.2, 0.8, "good"), strict=True))]
    lines += [dict(zip(HEADER.split(","), ("c", 1.0, 0.0, "good"), strict=True))]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert_same(read_foreign(tmp_path / "t.jsonl", NAMED, ()))
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "t.parquet")
    assert_same(read_foreign(tmp_path / "t.parquet", NAMED, ()))
    lists = pa.table({"key": ["a", "b", "c"], "probs": PROBS, "truth": [0, 1, 1]})
    pq.write_table(lists, tmp_path / "l.parquet")
    columns = TableColumns(id="key", label="truth")
    assert_same(read_foreign(tmp_path / "l.parquet", columns, ("bad", "good")))


def test_a_probability_of_zero_is_read_as_the_smallest_and_that_is_said(tmp_path: Path) -> None:
    found = read_foreign(csv(tmp_path), NAMED, ())
    assert found.table.logits_NC[2].tolist() == [0.0, np.log(SMALLEST)]
    assert any("1 probabilities below 1e-12" in note for note in found.notes)


def test_logits_stay_as_they_are(tmp_path: Path) -> None:
    path = csv(tmp_path, "1.5,-2,0", "0,0.25,1", header="logit_0,logit_1,label")
    found = read_foreign(path, TableColumns(), ())
    assert found.table.logits_NC.tolist() == [[1.5, -2.0], [0.0, 0.25]]
    assert found.table.ids == ("row-0", "row-1") and found.labels == ("0", "1")


def test_one_column_is_the_second_class(tmp_path: Path) -> None:
    path = csv(tmp_path, "0.25,1", "0.5,0", header="score,label")
    found = read_foreign(path, TableColumns(probs=("score",)), ())
    np.testing.assert_allclose(softmax(found), [[0.75, 0.25], [0.5, 0.5]])
    assert any("second of two classes" in note for note in found.notes)


def test_our_own_table_is_read_by_its_contract(tmp_path: Path) -> None:
    logits = [[1.0, 2.0], [0.0, 0.5], [3.0, 0.0]]
    write_predictions(tmp_path, ["a", "b", "c"], ["test"] * 3, [0, 1, 1], logits, None, [0, 1, 0])
    found = read_foreign(tmp_path / "predictions.parquet", TableColumns(), ())
    assert found.is_cut and found.table.folds_N is not None
    assert found.table.folds_N.tolist() == [0, 1, 0] and found.table.of("fit").ids == (
        "a",
        "b",
        "c",
    )


def test_splits_and_energies(tmp_path: Path) -> None:
    rows = ["0.5,0.5,1,fit,-1.5", "0.25,0.75,0,test,2"]
    path = csv(tmp_path, *rows, header="prob_0,prob_1,label,split,energy")
    found = read_foreign(path, TableColumns(), ())
    assert found.is_cut and found.table.splits == ("fit", "test")
    assert found.table.energy_N is not None and found.table.energy_N.tolist() == [-1.5, 2.0]


def test_without_labels_it_is_said(tmp_path: Path) -> None:
    for text in ("prob_0,prob_1\n0.5,0.5\n", "prob_0,prob_1,label\n0.5,0.5,-1\n"):
        path = tmp_path / "u.csv"
        path.write_text(text)
        found = read_foreign(path, TableColumns(), ())
        assert found.table.labels_N.tolist() == [-1] and not found.table.labelled
        assert "only figures that need none are computed" in found.notes[0]


def test_names_that_are_numbers(tmp_path: Path) -> None:
    header = "p1,p2,label"
    by_number = read_foreign(csv(tmp_path, "0.5,0.5,0", "0.5,0.5,1", header=header), STARS, ())
    by_name = read_foreign(csv(tmp_path, "0.5,0.5,1", "0.5,0.5,2", header=header), STARS, ())
    assert by_number.table.labels_N.tolist() == by_name.table.labels_N.tolist() == [0, 1]
    with pytest.raises(InputError, match="could be their numbers from 0 as well"):
        read_foreign(csv(tmp_path, "0.5,0.5,1", "0.5,0.5,1", header=header), STARS, ())


STARS = TableColumns(probs=("p1", "p2"))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,0.7,0.4,bad"], r"row 0 sum to 1\.1"),
        (["a,0.7,0.3,bad", "b,-1.5,2.5,good"], "row 1 hold -1.5: these look like logits"),
        (["a,2.5,1.5,bad"], "row 0 sum to 4"),
        (["a,nan,0.3,bad"], "row 1 has nothing in 'p_bad'"),
        (["a,,0.3,bad"], "row 1 has nothing in 'p_bad'"),
        (["a,0.7,0.3,bad", "b,0.7,0.3,fair"], "row 2 has a label that is 'fair'"),
        (["a,0.7,0.3,bad", "b,0.7,0.3,"], "row 2 has a label that is missing"),
        (["a,0.7,0.3,0", "b,0.7,0.3,2"], "row 2 has a label that is '2'"),
        (["a,0.7,0.3,bad", "a,0.7,0.3,bad"], "row 2 has the id 'a', which an earlier row has"),
        (["a,x,0.3,bad"], "row 1 has 'x' in 'p_bad'"),
        (["a,0.7,0.3"], "cannot be read"),
    ],
)
def test_each_mistake_is_named(rows: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        read_foreign(csv(tmp_path, *rows), NAMED, ())


@pytest.mark.parametrize(
    ("columns", "labels", "says"),
    [
        (TableColumns(), (), "no columns that are known to hold logits or probabilities"),
        (TableColumns(probs=("q",)), (), "no column 'q'"),
        (TableColumns(probs=("p_*",), label="stars"), (), r"no column 'stars' \(label=\)"),
        (TableColumns(probs=("p_*",), id="no"), (), "no column 'no'"),
        (TableColumns(probs=("p_*",), logits=("p_*",)), (), "Both logits= and probs="),
        (TableColumns(probs=("p_*",), split="key", label="truth"), (), "is of split 'a'"),
        (NAMED, ("one",), "labels names one, and .* has 2 classes"),
    ],
)
def test_settings_that_do_not_fit(
    columns: TableColumns, labels: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        read_foreign(csv(tmp_path), columns, labels)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no parquet")
    (tmp_path / "empty.csv").write_text("prob_0,prob_1\n")
    (tmp_path / "twice.csv").write_text("prob_0,prob_0\n0.5,0.5\n")
    (tmp_path / "t.xlsx").write_text("x")
    for name in ("broken.parquet", "empty.csv", "twice.csv", "t.xlsx", "not_there.csv"):
        with pytest.raises(InputError):
            read_foreign(tmp_path / name, TableColumns(), ())
