from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from calib_ebm.report import diagrams, svg
from calib_ebm.report.diagrams import Bins


def three_bins(*counts: float) -> Bins:
    return Bins(
        edges=np.linspace(0, 1, 4),
        count_M=np.asarray(counts),
        confidence_M=np.asarray([0.2, 0.5, 0.9]),
        frequency_M=np.asarray([0.5, 0.25, 0.9]),
    )


def test_a_steady_fall_is_its_own_running_mean() -> None:
    fall = np.linspace(5, -3, 200)
    smooth = diagrams.running_mean(fall)
    assert smooth is not None
    np.testing.assert_allclose(smooth, fall, atol=1e-12)


def test_a_running_mean_is_quieter_and_keeps_the_level() -> None:
    noise = np.random.default_rng(0).standard_normal(1000)
    smooth = diagrams.running_mean(noise)
    assert smooth is not None
    assert smooth.std() < 0.3 * noise.std()
    assert diagrams.running_mean(noise[:59]) is None


def test_one_value_does_not_decide_how_a_curve_ends() -> None:
    value = np.ones(200)
    value[-1] = 11.0  # of a window of 11 values
    smooth = diagrams.running_mean(value)
    assert smooth is not None
    assert 1 < smooth[-1] < 5
    np.testing.assert_allclose(smooth[:180], 1.0)


def test_limits_hold_nearly_all_and_no_outlier() -> None:
    sample = np.random.default_rng(0).standard_normal(1000)
    low, high = diagrams.robust_limits([sample, np.asarray([1e30, -1e38, np.inf, np.nan])])
    assert -6 < low < -2
    assert 2 < high < 6


@pytest.mark.parametrize(
    "samples", [[[]], [[np.nan]], [[0.0, 0.0]], [[1e30] * 3], [[-5e-324, 0.0]], [[3.0], []]]
)
def test_limits_are_always_an_interval(samples: list[list[float]]) -> None:
    low, high = diagrams.robust_limits([np.asarray(sample, dtype=float) for sample in samples])
    assert np.isfinite([low, high]).all()
    assert low < high


def test_thinning_keeps_the_ends_and_drops_what_is_not_finite() -> None:
    x = np.arange(100.0)
    y = x.copy()
    y[50] = np.inf
    thin_x, thin_y = diagrams.thinned(x, y, 10)
    assert len(thin_x) == 10
    assert (thin_x[0], thin_x[-1]) == (0, 99)
    np.testing.assert_array_equal(thin_x, thin_y)
    assert len(diagrams.thinned(x, y, 1000)[0]) == 99


def test_bins_of_few_texts_are_fainter_than_those_of_many() -> None:
    def strengths(drawing: str) -> set[str]:
        return set(re.findall(r"fill: var\(--first\); opacity: ([\d.]+)", drawing))

    many = strengths(diagrams.reliability(three_bins(50, 50, 50), "a", ""))
    mixed = strengths(diagrams.reliability(three_bins(50, diagrams.FEW - 1, 50), "a", ""))
    assert many == {"0.75"}
    assert mixed == {"0.75", "0.225"}


def test_a_drawing_is_one_labelled_svg_of_the_pages_own_colours() -> None:
    label = 'counts <of> "all"'
    drawing = diagrams.reliability(three_bins(0, 1, 20_000), "slug", label)
    root = ET.fromstring(drawing)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == label
    tags = {element.tag for element in root.iter()}
    assert not tags & {"style", "metadata", "script", "image"}
    assert "var(--ink)" in drawing
    assert not re.search(r"#0101\d\d|DejaVu|https?:", drawing)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(one is not None and one.startswith("slug-") for one in ids)
    assert len(set(ids)) == len(ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', drawing)
    assert used
    assert set(used) <= set(ids)


def test_a_dollar_sign_is_no_formula_and_a_colours_name_in_text_stays() -> None:
    name = f"$x_1$ & {svg.FIRST} <b>"
    drawing = diagrams.agreement(
        {name: (np.zeros(2), np.ones(2)), "b": (np.ones(2), np.ones(2))},
        "s",
        "",
        axis_labels=("x", "y"),
    )
    assert name in [element.text for element in ET.fromstring(drawing).iter("text")]


def test_the_same_numbers_give_the_same_drawing() -> None:
    drawings = {diagrams.reliability(three_bins(1, 2, 3), "a", "b") for _ in range(2)}
    assert len(drawings) == 1


def test_matplotlibs_settings_are_left_as_they_were() -> None:
    with mpl.rc_context({"font.size": 31.0}):
        size_with_theirs = diagrams.reliability(three_bins(1, 2, 3), "a", "b")
        assert mpl.rcParams["font.size"] == 31.0
        assert mpl.rcParams["svg.fonttype"] != "none"
    assert size_with_theirs == diagrams.reliability(three_bins(1, 2, 3), "a", "b")


@pytest.mark.parametrize(
    ("value", "as_percent"),
    [
        ([0.5], False),
        ([0.5, 0.5], True),
        ([1.0, 0.0], True),
        ([1e300, -1e300], False),
        (list(np.linspace(0, 1e-9, 80)), True),
    ],
)
def test_any_curve_can_be_drawn(value: list[float], as_percent: bool) -> None:
    step = np.arange(len(value), dtype=float)
    drawing = diagrams.curve(step, np.asarray(value), "a", "b", as_percent=as_percent)
    assert drawing.startswith("<svg")


def test_histograms_of_huge_and_of_no_energies_can_be_drawn() -> None:
    huge = np.asarray([-3e38, 1.0, 3e38, np.nan, np.inf])
    for samples in ({"data": huge, "noise": huge}, {"data": huge[:0], "noise": huge}):
        limits = diagrams.robust_limits(list(samples.values()))
        assert diagrams.histograms(samples, limits, "a", "b").startswith("<svg")


@pytest.mark.parametrize(
    ("top", "labels"),
    [(0.114, ["0%", "5%", "10%"]), (0.0052, ["0.0%", "0.2%", "0.4%"])],
)
def test_a_percentage_on_an_axis_is_never_a_rounded_one(top: float, labels: list[str]) -> None:
    drawing = diagrams.curve(
        np.asarray([1.0, 2.0]), np.asarray([0.0, top]), "a", "", as_percent=True, from_zero=True
    )
    texts = [element.text or "" for element in ET.fromstring(drawing).iter("text")]
    assert [text for text in texts if text.endswith("%")] == labels
