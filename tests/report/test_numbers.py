from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.calibration.estimates import ESTIMATES
from calib_ebm.report import numbers
from calib_ebm.report.numbers import StoredEstimate
from calib_ebm.report.tables import METRICS, diagnostics, floor_texts, metric_rows


@given(st.floats())
def test_any_float_can_be_written(value: float) -> None:
    written = [numbers.percent(value), numbers.decimals(value), numbers.seconds(abs(value))]
    assert all(written)
    assert not any("nan" in text or text.replace("infinite", "").count("inf") for text in written)
    assert max(len(text) for text in written[:2]) < 12


@given(st.floats(0, 1))
def test_a_written_percentage_is_the_share_to_its_last_digit(value: float) -> None:
    assert math.isclose(float(numbers.percent(value).rstrip("%")) / 100, value, abs_tol=5.1e-4)


def test_negative_numbers_have_a_minus_and_not_a_hyphen() -> None:
    assert numbers.decimals(-1.5) == "\N{MINUS SIGN}1.500"
    assert StoredEstimate(-0.5, -0.75, 0.25).interval("") == ("[\N{MINUS SIGN}0.750, 0.250]")


def test_an_estimate_takes_its_interval_from_the_names_beside_it() -> None:
    metrics = {"test/nll": 0.5, "test/nll/low": 0.25, "test/nll/high": 1.0, "test/brier": 0.125}
    assert StoredEstimate.of(metrics, "test/nll") == StoredEstimate(0.5, 0.25, 1.0)
    assert StoredEstimate.of(metrics, "test/brier") == StoredEstimate(0.125, None, None)
    assert StoredEstimate.of(metrics, "test/cls/acc") is None


def test_rows_are_those_measured_and_in_their_order() -> None:
    metrics = {"test_calibrated/brier": 0.2, "test/cls/acc": 0.9, "fit/nll": 0.3, "other": 1.0}
    rows = metric_rows(metrics)
    assert [row.metric.name for row in rows] == ["cls/acc", "brier"]
    assert [row.texts() for row in rows] == [("90.0%", ""), ("", "0.200")]


def test_further_figures_have_a_table_of_their_own() -> None:
    metrics = {"test/selective/aurc": 0.02, "test/brier/reliability": 0.004, "test/nll": 0.5}
    metrics |= {"test/brier/reliability/floor": 0.002, "test/brier/reliability/p_value": 0.2}
    assert [row.metric.name for row in metric_rows(metrics)] == ["nll"]
    further = metric_rows(metrics, further=True)
    assert [row.texts()[0] for row in further] == ["0.004", "2.0%"]
    assert floor_texts(metrics, "brier/reliability")[0] == "0.002, p = 0.200"


def test_every_estimate_of_a_set_has_its_row() -> None:
    """But for what the bins leave over of the Brier score, which only completes the sum.

    Mean confidence and entropy need no labels, so they are no estimates of a set with labels.
    """
    rows = {metric.name for metric in METRICS if not metric.name.startswith("cal/true")}
    assert rows == {*ESTIMATES, "confidence", "entropy"} - {"brier/within"}


def test_the_columns_can_be_others() -> None:
    rows = metric_rows({"shift/nll": 0.5}, columns={"shift": "Shifted"})
    assert [row.texts() for row in rows] == [("0.500",)]
    assert floor_texts({}, "cal/ece") == ("", "")


def test_only_what_was_measured_is_a_diagnostic() -> None:
    assert diagnostics({"test/nll": 1.0}) == ()
    assert [value for _, value, _ in diagnostics({"nce/accuracy": 0.75})] == ["75.0%"]
