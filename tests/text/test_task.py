from __future__ import annotations

from typing import Any

import pytest

from calib_ebm.shapes import Example
from calib_ebm.text.task import TaskData, digest

FINE = Example("dev-0", "fine", None, 1)


@pytest.mark.parametrize(
    "change", [{"id": "dev-1"}, {"text": "fine "}, {"text_pair": ""}, {"label": 0}]
)
def test_the_digest_depends_on_every_field(change: dict[str, Any]) -> None:
    assert digest([FINE]) == digest([FINE._replace()])
    assert digest([FINE._replace(**change)]) != digest([FINE])


def test_the_digest_depends_on_order_and_not_on_where_a_text_ends() -> None:
    other = FINE._replace(id="dev-1")
    assert digest([FINE, other]) != digest([other, FINE])
    assert digest([Example("a", "b", "c", 0)]) != digest([Example("a", "b\nc", None, 0)])


def build(**changes: Any) -> TaskData:
    parts = {"train": (Example("train-0", "a", None, 0),), "fit": (FINE,), "test": ()}
    fixed = {"name": "t", "labels": ("a", "b"), "metrics": ("acc",), "notes": (), "digests": {}}
    return TaskData(**{**fixed, **parts, **changes})


def test_no_example_may_be_in_two_parts() -> None:
    assert build().truth is None
    with pytest.raises(AssertionError, match="two parts"):
        build(test=(FINE,))
    assert build(test=(FINE,), folds=(0,)).folds == (0,)  # crossfitted: one part for both uses
    for folds in ((0, 1), ()):
        with pytest.raises(AssertionError, match="folds of what"):
            build(test=(FINE,), folds=folds)


@pytest.mark.parametrize("metrics", [("mcc", "acc"), ("acc", "bleu")])
def test_metrics_are_known_and_accuracy_comes_first(metrics: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        build(metrics=metrics)
