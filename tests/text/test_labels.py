from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.text.labels import found_names, given_names, label_name, sorted_names


@given(st.integers(-(10**9), 10**9))
def test_a_whole_number_has_one_spelling(n: int) -> None:
    values = (n, str(n), float(n), f"{n}.0", f" {n} ", Decimal(n), f"{n}.00")
    assert {label_name(value) for value in values} == {str(n)}


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "01"), ("1", "1.5"), ("1.1", "1.10"), ("good", "Good"), (0, False), ("1", "-1")],
)
def test_different_labels_stay_different(one: Any, other: Any) -> None:
    assert label_name(one) != label_name(other)


@pytest.mark.parametrize("value", [None, float("nan"), "", "  "])
def test_no_label(value: Any) -> None:
    assert label_name(value) == ""


def test_booleans_have_one_spelling() -> None:
    assert {label_name(value) for value in (True, "True", "true", "TRUE")} == {"true"}


def test_numbers_sort_as_numbers_and_words_after_them() -> None:
    assert sorted_names(["10", "9", "-1", "2.5"]) == ("-1", "2.5", "9", "10")
    assert sorted_names(["b", "10", "a", "9", "nan"]) == ("9", "10", "a", "b", "nan")


def test_given_labels_keep_their_order() -> None:
    assert given_names(["pos", "neg", 3.0]) == ("pos", "neg", "3")


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"], [1, "1.0"], ["a", ""], "ab", 2])
def test_given_labels_that_cannot_be(labels: Any) -> None:
    with pytest.raises(InputError, match=r"task\.labels is"):
        given_names(labels)


def test_a_column_of_texts_is_not_taken_for_labels() -> None:
    with pytest.raises(InputError, match=r"40 different values in 60 rows"):
        found_names([f"word {i % 40}" for i in range(60)], 60, "a.csv")
    assert len(found_names([f"word {i % 20}" for i in range(30)], 30, "a.csv")) == 20


@pytest.mark.parametrize(("names", "says"), [(["a", "a"], "only the label 'a'"), ([], "no row")])
def test_one_class_only(names: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        found_names(names, len(names), "a.csv")
