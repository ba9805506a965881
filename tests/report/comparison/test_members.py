from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from calib_ebm.calibration.temperature import Temperature
from calib_ebm.report.comparison.find import read_all
from calib_ebm.report.comparison.members import gather, in_order_of, resample
from calib_ebm.report.files import read_predictions, read_run, write_metrics, write_predictions

Folder = Callable[..., Path]


def test_runs_are_put_by_task_method_and_seed_with_the_baseline_first(
    run_folder: Folder,
) -> None:
    folders = [
        run_folder(task=task, energy=energy, seed=seed)
        for task in ("b", "a")
        for energy in ("hidden", "none")
        for seed in (2, 1)
    ]
    tasks, left_out = gather(read_all(tuple(folders)).runs, None)
    assert [task.task for task in tasks] == ["a", "b"] and left_out == ()
    for task in tasks:
        assert task.methods == ("plain fine-tuning", "hidden")
        assert task.baseline == "plain fine-tuning" and task.texts == 200
        assert [list(runs) for runs in task.members.values()] == [[1, 2], [1, 2]]


def test_figures_are_those_of_metrics_json_before_and_after(run_folder: Folder) -> None:
    folder = run_folder(sharp=2.0, truth=True)
    tasks, _ = gather(read_all((folder,)).runs, None)
    member = tasks[0].first
    resample(member, 50, 0)
    told = read_run(folder).metrics
    for name, value in member.values.items():
        if not name.endswith("cal/true"):
            assert value == pytest.approx(told[name], abs=1e-6), name
    assert member.values["test/cal/ece"] != pytest.approx(member.values["test_calibrated/cal/ece"])
    assert "test/cal/true" in member.values
    assert {*member.resampled} == {*member.values}


def test_a_second_run_of_the_same_settings_and_seed_is_left_out(run_folder: Folder) -> None:
    first, second = run_folder(name="a"), run_folder(name="b")
    tasks, left_out = gather(read_all((first, second)).runs, None)
    assert tasks[0].first.run.path == first
    assert [each.folder for each in left_out] == [second]
    assert f"{first} has the same settings and the same seed" in left_out[0].why


def test_a_run_on_another_dev_set_than_the_baseline_s_is_left_out(run_folder: Folder) -> None:
    folders = [run_folder(seed=1), run_folder(energy="hidden", seed=1)]
    # Two runs on another set are more, but the baseline's set decides.
    others = [run_folder(energy="hidden", seed=s, data_seed=7, name=f"other{s}") for s in (2, 3)]
    tasks, left_out = gather(read_all((*folders, *others)).runs, None)
    assert {each.folder for each in left_out} == {*others}
    assert all("Its dev set is not that" in each.why for each in left_out)
    assert {*tasks[0].members["hidden"]} == {1}


def test_metrics_that_tell_of_other_predictions_are_no_run(run_folder: Folder) -> None:
    good, bad = run_folder(seed=1), run_folder(seed=2)
    metrics = json.loads((bad / "metrics.json").read_text())
    write_metrics(bad, metrics | {"test/cal/ece": metrics["test/cal/ece"] + 0.01})
    tasks, left_out = gather(read_all((good, bad)).runs, None)
    assert [each.folder for each in left_out] == [bad]
    assert "metrics.json tells of a top-label ECE" in left_out[0].why
    assert {*tasks[0].members["plain fine-tuning"]} == {1}


def test_texts_in_another_order_are_the_same_texts(run_folder: Folder) -> None:
    first, second = run_folder(seed=1), run_folder(seed=2)
    table = read_predictions(second)
    back = np.arange(len(table.ids))[::-1]
    write_predictions(
        second,
        [table.ids[row] for row in back],
        [table.splits[row] for row in back],
        table.labels_N[back],
        table.logits_NC[back],
        None,
    )
    tasks, left_out = gather(read_all((first, second)).runs, None)
    assert left_out == ()
    a, b = tasks[0].members["plain fine-tuning"].values()
    assert a.test.ids == b.test.ids
    np.testing.assert_array_equal(a.test.labels_N, b.test.labels_N)
    of_b = dict(zip(table.ids, table.logits_NC, strict=True))
    np.testing.assert_array_equal(b.test.logits_NC, [of_b[one] for one in b.test.ids])
    probs = np.exp(b.test.logits_NC) / np.exp(b.test.logits_NC).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(b.probs["test"].numpy(), probs, atol=1e-12)
    assert in_order_of(b, b.test.ids) is b


def test_a_run_without_a_fit_half_is_left_out(run_folder: Folder) -> None:
    good, bad = run_folder(seed=1), run_folder(seed=2)
    table = read_predictions(bad).of("test")
    write_predictions(bad, table.ids, table.splits, table.labels_N, table.logits_NC, None)
    _, left_out = gather(read_all((good, bad)).runs, None)
    assert [each.folder for each in left_out] == [bad]


def test_what_stands_for_a_method_has_a_seed_that_all_have(run_folder: Folder) -> None:
    folders = [run_folder(seed=s) for s in (1, 2)] + [run_folder(energy="hidden", seed=2)]
    tasks, _ = gather(read_all(tuple(folders)).runs, None)
    assert {tasks[0].one_of(method).seed for method in tasks[0].methods} == {2}


def test_a_crossfitted_run_is_calibrated_fold_by_fold(run_folder: Folder) -> None:
    folder = run_folder(sharp=3.0)
    table = read_predictions(folder)
    folds = [index % 4 for index in range(len(table.ids))]
    splits = ["test"] * len(folds)
    columns = (table.labels_N, table.logits_NC, None)
    write_predictions(folder, table.ids, splits, *columns, folds=folds)
    write_metrics(folder, {})
    tasks, left_out = gather(read_all((folder,)).runs, None)
    assert left_out == ()
    found_NC = tasks[0].first.probs["test_calibrated"]
    logits_NC, labels_N = torch.from_numpy(table.logits_NC), torch.from_numpy(table.labels_N)
    of_fold_N = torch.tensor(folds)
    for fold in range(4):
        mine_N = of_fold_N == fold
        others = Temperature().fit(logits_NC[~mine_N], labels_N[~mine_N])
        own = Temperature().fit(logits_NC[mine_N], labels_N[mine_N])
        torch.testing.assert_close(found_NC[mine_N], others.probabilities(logits_NC[mine_N]))
        assert not torch.allclose(found_NC[mine_N], own.probabilities(logits_NC[mine_N]))


def test_a_run_without_labels_is_left_out(run_folder: Folder) -> None:
    folder = run_folder()
    table = read_predictions(folder)
    labels = [
        label if split == "fit" else -1
        for label, split in zip(table.labels_N, table.splits, strict=True)
    ]
    write_predictions(folder, table.ids, table.splits, labels, table.logits_NC, None)
    found = read_all((folder,))
    assert found.runs == () and "no labels" in found.left_out[0].why
