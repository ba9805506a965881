from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calib_ebm.report.comparison.confidence import mean_course, risk_at, sides_of
from calib_ebm.report.comparison.energy import other_texts
from calib_ebm.report.comparison.find import read_all
from calib_ebm.report.comparison.members import Member, gather
from calib_ebm.report.files import read_predictions, write_predictions

Folder = Callable[..., Path]


def member(folder: Path) -> Member:
    return gather(read_all((folder,)).runs, None)[0][0].first


def test_risk_at_a_coverage_by_hand() -> None:
    # Most confident first: right, wrong, right, wrong.
    probs = np.asarray([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    labels = np.asarray([0.0, 0.0, 0.0, 0.0])
    found = risk_at(probs, labels, np.asarray([0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(found, [0 / 1, 1 / 2, 1 / 3, 2 / 4])


def test_texts_of_equal_confidence_are_in_no_order() -> None:
    probs, labels = np.tile([0.8, 0.2], (10, 1)), np.asarray([0.0] * 7 + [1.0] * 3)
    for order in (np.arange(10), np.arange(10)[::-1]):
        found = risk_at(probs, labels[order], np.asarray([0.1, 0.5, 1.0]))
        np.testing.assert_allclose(found, [0.3, 0.3, 0.3])


def test_a_course_is_the_mean_over_the_steps_that_all_seeds_have() -> None:
    line = mean_course("a", [{10: 0.1, 20: 0.3}, {10: 0.3, 20: 0.5, 30: 0.9}])
    assert line is not None and line.low is not None and line.high is not None
    assert line.x.tolist() == [10, 20] and line.y.tolist() == pytest.approx([0.2, 0.4])
    assert line.low.tolist() == [0.1, 0.3] and line.high.tolist() == [0.3, 0.5]
    alone = mean_course("a", [{10: 0.1}])
    assert alone is not None and alone.low is None
    assert mean_course("a", []) is None and mean_course("a", [{1: 0.1}, {2: 0.1}]) is None


def test_two_runs_are_set_side_by_side_text_by_text(run_folder: Folder) -> None:
    a, b = member(run_folder(seed=1)), member(run_folder(energy="hidden", seed=2))
    sides = sides_of(a, b)
    assert sum(len(x) for x, _ in sides.values()) == 200
    probs = [one.probs["test"].numpy() for one in (a, b)]
    right = [p.argmax(axis=1) == a.test.labels_N for p in probs]
    only_a = right[0] & ~right[1]
    assert only_a.any()
    np.testing.assert_array_equal(sides["only the baseline right"][1], probs[1].max(axis=1)[only_a])


def test_energies_of_other_texts_are_those_of_the_evaluations(run_folder: Folder) -> None:
    folder = run_folder(energy="hidden")
    own = read_predictions(folder)
    assert own.energy_N is not None
    places = {name: folder / "evaluations" / name for name in ("again", "shift", "broken", "empty")}
    for place in places.values():
        place.mkdir(parents=True)
    columns = (own.ids, own.splits, own.labels_N, own.logits_NC)
    write_predictions(places["again"], *columns, own.energy_N)
    write_predictions(places["shift"], *columns, own.energy_N + 2)
    (places["broken"] / "predictions.parquet").write_text("no")
    sets, left_out = other_texts(member(folder))
    assert [*sets] == ["shift"] and len(sets["shift"]) == 200
    assert [each.folder for each in left_out] == [places["broken"]]
