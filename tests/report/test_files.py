from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from calib_ebm.errors import InputError
from calib_ebm.report import columns, files
from calib_ebm.report.files import NoiseSample

MakeRun = Callable[..., Path]
IDS = ("dev-0", "dev-1", "dev-2")
SPLITS = ("fit", "test", "test")
LOGITS = [[0.5, -1.0], [2.0, 3.0], [0.0, 0.1]]


def write(folder: Path, **change: Any) -> None:
    given: dict[str, Any] = {"ids": IDS, "splits": SPLITS, "labels": [0, 1, 1], "energy_N": None}
    given |= {"logits_NC": np.asarray(LOGITS)} | change
    files.write_predictions(folder, **given)


def test_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    energy = torch.tensor([1.5, -2.0, 1e30], dtype=torch.bfloat16)
    write(tmp_path, labels=torch.tensor([0, 1, 1]), logits_NC=torch.tensor(LOGITS), energy_N=energy)
    read = files.read_predictions(tmp_path)
    assert read.ids == IDS
    assert read.splits == SPLITS
    assert read.labels_N.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(read.logits_NC, torch.tensor(LOGITS).double().numpy())
    assert read.energy_N is not None
    np.testing.assert_array_equal(read.energy_N, energy.double().numpy())


def test_predictions_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    write(tmp_path)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.schema == pa.schema(
        [
            ("id", pa.string()),
            ("split", pa.string()),
            ("label", pa.int64()),
            ("logits", pa.list_(pa.float64())),
            ("energy", pa.float64()),
        ]
    )
    assert table.column("energy").null_count == 3
    assert files.read_predictions(tmp_path).energy_N is None


def test_a_half_holds_its_texts_and_only_those(tmp_path: Path) -> None:
    write(tmp_path, energy_N=np.asarray([1.0, 2.0, 3.0]))
    test = files.read_predictions(tmp_path).of("test")
    assert test.ids == ("dev-1", "dev-2")
    assert test.logits_NC.tolist() == LOGITS[1:]
    assert test.energy_N is not None
    assert test.energy_N.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": ("a", "b", "b")}, "an id appears twice"),
        ({"ids": ("a", "a", "b")}, "'a' is in the fit half and in the test half"),
        ({"splits": ("fit", "test", "train")}, "split"),
        ({"labels": [0, 1, 2]}, "outside 0 to 1"),
        ({"labels": [0, -2, 1]}, "outside 0 to 1"),
        ({"labels": [0, -1, 1]}, "of split test have a label and some have -1"),
        ({"folds": [0, 1, 1]}, "texts of a split other than test"),
        ({"folds": [0, 1]}, "differ in length"),
        ({"folds": [1, 1, 1], "splits": ["test"] * 3}, "its folds are not two or more"),
        ({"labels": [0, 1]}, "differ in length"),
        ({"energy_N": [0.5]}, "differ in length"),
        ({"logits_NC": np.asarray([[0, 1], [0, math.nan], [1, 0]])}, "not finite"),
    ],
)
def test_predictions_that_cannot_be_trusted_are_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        write(tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_a_table_that_someone_else_broke_is_refused_on_reading(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "predictions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "id", pa.array(["a", "a", "b"])), path)
    with pytest.raises(InputError, match=r"predictions\.parquet.*'a' is in the fit half"):
        files.read_predictions(tmp_path)
    pq.write_table(table.set_column(4, "energy", pa.array([1.0, None, 2.0])), path)
    with pytest.raises(InputError, match="some have none"):
        files.read_predictions(tmp_path)
    pq.write_table(table.drop_columns(["label"]), path)
    with pytest.raises(InputError, match="no column 'label'"):
        files.read_predictions(tmp_path)
    logits = pa.array([[1.0, 2.0], [1.0], [2.0, 1.0]])
    pq.write_table(table.set_column(3, "logits", logits), path)
    with pytest.raises(InputError, match="number of classes"):
        files.read_predictions(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    before = (tmp_path / "predictions.parquet").read_bytes()

    def disk_full(_table: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(columns.pq, "write_table", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, labels=[1, 1, 1])
    assert (tmp_path / "predictions.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]


def test_a_whole_run_is_read(make_run: MakeRun) -> None:
    run = files.read_run(make_run(classes=3, embedded=True))
    assert run.run.task == "embedded"
    assert run.run.labels == ("class 0", "class 1", "class 2")
    assert run.run.temperature == 1.75
    assert run.run.stages["draw_noise"].skipped
    assert run.config["trainer"] == {"max_steps": 300}
    assert run.metrics["test/cal/ece"] == 0.0931
    assert run.history["step"].tolist() == list(range(0, 2000, 10))
    assert np.isnan(run.history["val/cls/acc"]).sum() == 190
    assert len(run.noise_samples) == 25
    assert run.energies is not None
    assert run.energies.true_noise_N is not None
    assert np.isinf(run.energies.true_noise_N).sum() == 7
    assert run.truth is not None
    np.testing.assert_allclose(run.truth.probs_NC.sum(axis=1), 1)


def test_optional_files_may_be_missing(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("history.csv", "energies.parquet", "noise_samples.jsonl"):
        (folder / name).unlink()
    run = files.read_run(folder)
    assert (run.history, run.energies, run.noise_samples, run.truth) == ({}, None, (), None)


@pytest.mark.parametrize("missing", ["run.json", "config.yaml"])
def test_a_folder_that_is_no_run_folder(make_run: MakeRun, missing: str) -> None:
    folder = make_run()
    (folder / missing).unlink()
    with pytest.raises(InputError, match=f"no run folder: it has no {missing}"):
        files.read_run(folder)
    with pytest.raises(InputError, match="no run folder"):
        files.read_run(folder / "nowhere")


@pytest.mark.parametrize("missing", ["metrics.json", "predictions.parquet"])
def test_an_unfinished_run_says_that_the_same_command_goes_on(
    make_run: MakeRun, missing: str
) -> None:
    folder = make_run()
    (folder / missing).unlink()
    with pytest.raises(InputError) as caught:
        files.read_run(folder)
    assert missing in caught.value.given
    assert "same command again" in caught.value.to_do
    assert "python -m calib_ebm.train energy=sharp_hidden" in caught.value.to_do


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "run.json",
        "metrics.json",
        "history.csv",
        "predictions.parquet",
        "energies.parquet",
        "noise_samples.jsonl",
        "truth.parquet",
    ],
)
@pytest.mark.parametrize("rubbish", [b"\xff\xfe\x00 no", b"a,b\n{[1,2\n3\n"])
def test_a_broken_file_is_named(make_run: MakeRun, name: str, rubbish: bytes) -> None:
    folder = make_run(embedded=True)
    (folder / name).write_bytes(rubbish)
    with pytest.raises(InputError, match="cannot be used") as caught:
        files.read_run(folder)
    assert name in caught.value.given


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": []}, "no classes"),
        ({"labels": ["only", "two", "three"]}, "2 logits a text where the task has 3"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "hot"}, "wrong kind"),
        ({"stages": [1]}, "wrong kind"),
        ({"task": None, "seed": None}, "wrong kind"),
    ],
)
def test_a_run_record_that_makes_no_sense_is_refused(
    make_run: MakeRun, change: dict[str, Any], says: str
) -> None:
    folder = make_run()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8")) | change
    files.write_json(folder / "run.json", record)
    with pytest.raises(InputError, match=says):
        files.read_run(folder)


def test_nothing_in_a_config_is_executed(make_run: MakeRun, tmp_path: Path) -> None:
    folder, target = make_run(), tmp_path / "made"
    harm = f'a: !!python/object/apply:os.mkdir ["{target}"]\n'
    (folder / "config.yaml").write_text(harm, encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml"):
        files.read_run(folder)
    assert not target.exists()


def test_metrics_that_are_not_finite_are_null_and_come_back_as_nan(tmp_path: Path) -> None:
    files.write_metrics(tmp_path, {"b": math.inf, "a": 0.25, "c": np.float64("nan"), "d": 1})
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"a": 0.25, "b": None, "c": None, "d": 1}
    read = files.read_metrics(tmp_path)
    assert read["a"] == 0.25
    assert math.isnan(read["b"])


@pytest.mark.parametrize("value", ["0.5", True, [1], {"a": 1}])
def test_a_metric_that_is_no_number_is_refused(tmp_path: Path, value: object) -> None:
    files.write_json(tmp_path / "metrics.json", {"test/nll": value})
    with pytest.raises(InputError, match="test/nll"):
        files.read_metrics(tmp_path)


def test_a_history_may_end_in_a_torn_row_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("step,loss/ce,val/nll\n1,0.5,\n2,0.25,0.75\n3,0", encoding="utf-8")
    history = files.read_history(tmp_path)
    assert history["loss/ce"].tolist() == [0.5, 0.25]
    assert np.isnan(history["val/nll"][0])
    path.write_text("step,loss/ce\n1\n2,0.25\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"history\.csv"):
        files.read_history(tmp_path)
    path.write_text("step,loss/ce\n", encoding="utf-8")
    assert [len(column) for column in files.read_history(tmp_path).values()] == [0, 0]


def test_noise_samples_of_any_text_come_back(tmp_path: Path) -> None:
    samples = (
        NoiseSample("two\nlines", None, "a\u2028b \x85 \U0001f600", None),
        NoiseSample('"', "<mask>", "\\", -1.5),
    )
    files.write_noise_samples(tmp_path, samples)
    assert files.read_noise_samples(tmp_path) == samples


def test_energies_and_truth_come_back(tmp_path: Path) -> None:
    data, noise = np.asarray([1.0, -3.5e38]), torch.tensor([2.0, 4.0, 8.0])
    files.write_energies(tmp_path, data, noise)
    read = files.read_energies(tmp_path)
    assert read.data_N.tolist() == data.tolist()
    assert read.noise_N.tolist() == [2.0, 4.0, 8.0]
    assert read.true_data_N is None
    files.write_energies(tmp_path, data, noise, [0.5, 0.25], [1.0, math.inf, 2.0])
    read = files.read_energies(tmp_path)
    assert read.true_noise_N is not None
    assert read.true_noise_N.tolist() == [1.0, math.inf, 2.0]
    files.write_truth(tmp_path, ["a", "b"], torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    truth = files.read_truth(tmp_path)
    assert truth.ids == ("a", "b")
    assert truth.probs_NC.tolist() == [[0.25, 0.75], [1.0, 0.0]]
