from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from calib_ebm.report import files
from calib_ebm.report.sections import analysis
from calib_ebm.report.shares import wilson
from calib_ebm.report.texts import write_texts
from calib_ebm.shapes import Example

MakeRun = Callable[..., Path]


def told(logits: object, labels: list[int], energy: object) -> analysis.Told:
    table = files.Predictions(
        ids=tuple(f"t{index}" for index in range(len(labels))),
        splits=("test",) * len(labels),
        labels_N=np.asarray(labels),
        logits_NC=np.asarray(logits, dtype=np.float64),
        energy_N=np.asarray(energy, dtype=np.float64),
    )
    found = analysis.told_by(table)
    assert found is not None
    return found


def test_entropy_right_and_energy_of_each_text_with_a_finite_energy() -> None:
    found = told([[0, 0], [50, 0], [1, 2]], [0, 1, 1], [-1.0, 2.0, np.inf])
    assert found.ids == ("t0", "t1")
    np.testing.assert_allclose(found.entropy_N, [np.log(2), 0.0], atol=1e-12)
    assert found.right_N.tolist() == [True, False]
    np.testing.assert_allclose(found.confidence_N, [0.5, 1.0])


def test_groups_by_energy_hold_every_text_once() -> None:
    energy = [3.0, 1.0, 2.0, 0.0]
    found = told([[1, 0]] * 4, [1, 0, 1, 0], energy)  # right: those of energy 1 and 0
    middle, share, low, high = analysis.by_energy(found, groups=2)
    assert middle.tolist() == [0.5, 2.5] and share.tolist() == [1.0, 0.0]
    assert (low <= share).all() and (share <= high).all()


@pytest.mark.parametrize(("right", "count"), [(3, 10), (0, 7), (7, 7)])
def test_wilson_s_interval_is_scipy_s(right: int, count: int) -> None:
    low, high = wilson(np.asarray([right / count]), np.asarray([float(count)]))
    theirs = stats.binomtest(right, count).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [theirs.low, theirs.high], atol=1e-6)


def test_without_texts_in_a_group_anything_is_possible() -> None:
    low, high = wilson(np.asarray([0.0]), np.asarray([0.0]))
    assert low[0] == 0.0 and high[0] == pytest.approx(1.0)


def test_the_ten_lowest_and_the_ten_highest_are_shown_in_order() -> None:
    energy = np.random.default_rng(0).permutation(30).astype(float)
    found = told([[1, 0]] * 30, [0, 1] * 15, energy)
    texts = {one: f"text {energy[index]:.0f}" for index, one in enumerate(found.ids)}
    for end, wanted in (("lowest", range(10)), ("highest", range(29, 19, -1))):
        table = analysis.extremes(found, texts, ("no", "yes"), end)
        assert [cells[0].text for cells in table.rows] == [f"text {one}" for one in wanted]
    assert table.rows[0][2].text == "no (73.1%)"
    assert {cells[2].note for cells in table.rows} == {"right", "wrong, it is yes"}


def test_without_texts_ids_are_shown_and_the_page_says_why() -> None:
    found = told([[1, 0]] * 3, [0, 0, 0], [0.0, 1.0, 2.0])
    table = analysis.extremes(found, {"t0": "known"}, ("no", "yes"), "lowest")
    assert [cells[0].text for cells in table.rows] == ["known", "t1", "t2"]
    assert "no texts.parquet" in table.caption
    whole = dict.fromkeys(found.ids, "x")
    assert "texts.parquet" not in analysis.extremes(found, whole, ("no", "yes"), "lowest").caption


def test_a_run_without_an_energy_has_no_such_section(make_run: MakeRun) -> None:
    assert analysis.section(files.read_run(make_run(energy="none"))) is None
    assert analysis.section(files.read_run(make_run(name="joint"))) is not None


def test_the_texts_of_a_run_stand_on_its_page(make_run: MakeRun, nasty: str) -> None:
    from calib_ebm.report.page import write_report

    folder = make_run()
    test = files.read_run(folder).predictions.of("test")
    assert test.energy_N is not None
    lowest = test.ids[int(test.energy_N.argmin())]
    write_texts(folder, [Example(one, nasty, None, 0) for one in test.ids if one == lowest])
    page = write_report(folder).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>" not in page
    assert "Rank correlation of energy and entropy" in page
