from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.errors import InputError
from calib_ebm.text.load import load_task
from calib_ebm.text.task import digest

Write = Callable[..., Path]
Node = Callable[..., dict[str, Any]]


def csv_of(rows: list[tuple[str, str]]) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


@pytest.fixture
def own(node: Node, write: Write) -> Callable[..., dict[str, Any]]:
    """A node with 40 training and 11 dev texts of three classes."""
    train = write("train.csv", csv_of([(f"text {i}", "abc"[i % 3]) for i in range(40)]))
    dev = write("dev.csv", csv_of([(f"dev text {i}", "abc"[i % 3]) for i in range(11)]))
    return lambda **changes: node("csv", **{"train": str(train), "dev": str(dev), **changes})


def test_a_whole_task(own: Node) -> None:
    data = load_task(own(name="reviews"), 0)
    assert (data.name, data.labels, data.metrics) == ("reviews", ("a", "b", "c"), ("acc",))
    assert (len(data.train), len(data.fit), len(data.test)) == (40, 5, 6)
    assert data.notes == ()
    assert data.truth is None


def test_nothing_that_is_read_depends_on_the_seed(own: Node) -> None:
    assert load_task(own(limit_train=7), 0) == load_task(own(limit_train=7), 1)


def test_file_halves_by_name_and_its_dropped_example_is_said(own: Node) -> None:
    data = load_task(own(split="file_halves"), 0)
    assert [e.id for e in data.fit + data.test] == [f"dev-{i}" for i in range(11) if i != 5]
    assert data.notes == ("dev: 1 example(s) belong to neither half.",)
    assert data.digests == load_task(own(), 0).digests  # of all of dev, however it is cut


def test_limit_train_is_said_and_digested(own: Node) -> None:
    everything, some = load_task(own(), 0), load_task(own(limit_train=9), 0)
    assert len(some.train) == 9
    assert set(some.train) < set(everything.train)
    assert some.notes == ("train: 9 of 40 examples are used (task.limit_train).",)
    assert some.digests["train"] == digest(some.train) != everything.digests["train"]
    assert (some.fit, some.test) == (everything.fit, everything.test)
    assert load_task(own(limit_train=40), 0) == everything


def test_limit_train_leaves_the_held_out_part_alone(own: Node) -> None:
    everything, some = (load_task(own(dev=None, limit_train=n), 0) for n in (None, 9))
    assert (some.fit, some.test) == (everything.fit, everything.test)
    assert set(some.train) < set(everything.train)


@pytest.mark.parametrize("limit", [0, 1, -3, 2.5, "many", True])
def test_a_limit_that_cannot_be(limit: Any, own: Node) -> None:
    with pytest.raises(InputError, match=rf"task\.limit_train is {limit}"):
        load_task(own(limit_train=limit), 0)


def test_a_limit_that_leaves_one_class(own: Node, write: Write) -> None:
    rows = [(f"text {i}", "a") for i in range(500)] + [("other", "b")]
    train = str(write("rare.csv", csv_of(rows)))
    dev = str(write("d.csv", csv_of([("one", "a"), ("two", "b")])))
    assert len(load_task(own(train=train, dev=dev), 0).train) == 501
    with pytest.raises(InputError, match=r"train has only the label 'a'[^$]*task\.limit_train"):
        load_task(own(train=train, dev=dev, limit_train=2), 0)


def test_a_split_with_one_class_only(own: Node, write: Write) -> None:
    one = str(write("one.csv", csv_of([("x", "a"), ("y", "a"), ("z", "a")])))
    with pytest.raises(InputError, match="train has only the label 'a'"):
        load_task(own(train=one), 0)
    with pytest.raises(InputError, match=r"dev has only the label 'a' \(3 examples\)"):
        load_task(own(dev=one), 0)


@pytest.mark.parametrize("rows", [[("x", "a")], [("x", "a"), ("", "b")]])
def test_fewer_than_two_dev_examples(rows: Any, own: Node, write: Write) -> None:
    with pytest.raises(InputError, match="The dev set has 1 examples"):
        load_task(own(dev=str(write("one.csv", csv_of(rows)))), 0)


def test_two_dev_examples_are_enough(own: Node, write: Write) -> None:
    data = load_task(own(dev=str(write("two.csv", csv_of([("x", "a"), ("y", "b")])))), 0)
    assert (len(data.fit), len(data.test)) == (1, 1)
    assert any(note.startswith("the fit half has no example of:") for note in data.notes)


def test_texts_of_dev_that_stand_in_train_are_counted(own: Node, write: Write) -> None:
    rows = [("text 3", "a"), ("text 4", "b"), ("fresh", "a"), ("fresh", "c")]
    dev = str(write("seen.csv", csv_of(rows)))
    assert "dev: 2 of 4 texts also stand in train." in load_task(own(dev=dev), 0).notes
    dev = str(write("twice.csv", csv_of([rows[2], rows[0], rows[1], rows[3]])))
    notes = load_task(own(dev=dev, split="file_halves"), 0).notes
    assert any("1 text(s) of the first half also stand in the second" in note for note in notes)
    assert not any("first half" in note for note in load_task(own(dev=dev), 0).notes)


def test_a_part_of_train_calibrates_and_all_of_dev_is_reported(own: Node) -> None:
    data = load_task(own(split="train_holdout", holdout_fraction=0.4), 0)
    plain = load_task(own(), 0)
    assert len(data.test) == 11 and data.folds is None
    assert sorted(data.train + data.fit) == sorted(plain.train) and data.fit
    assert any("all of dev is reported" in note for note in data.notes)
    assert data.digests == plain.digests  # of what was read, however it is cut
    limited = load_task(own(split="train_holdout", holdout_fraction=0.4, limit_train=20), 0)
    assert len(limited.train) + len(limited.fit) == 20 and limited.fit


def test_crossfitting_reports_all_of_dev_in_folds(own: Node) -> None:
    data = load_task(own(split="crossfit", folds=3), 0)
    assert data.fit == data.test and len(data.test) == 11
    assert data.folds is not None and {*data.folds} == {0, 1, 2}
    assert any("each of 3 folds after a calibrator fitted on the other" in n for n in data.notes)


def test_a_run_of_before_these_settings_is_read(own: Node) -> None:
    old = {k: v for k, v in own().items() if k not in ("holdout_fraction", "folds")}
    assert load_task(old, 0) == load_task(own(), 0)


def test_a_class_without_training_examples_is_said(own: Node) -> None:
    notes = load_task(own(labels=["a", "b", "c", "d"]), 0).notes
    assert notes[0] == "train has no example of: d."


def test_unknown_source_and_split(own: Node) -> None:
    with pytest.raises(InputError, match=r"task\.source is 'excel'[^$]*csv \| tsv \| jsonl"):
        load_task(own(source="excel"), 0)
    with pytest.raises(InputError, match=r"task\.split is 'thirds'"):
        load_task(own(split="thirds", train="not looked at.csv"), 0)


def test_stsb_is_refused_by_its_sentence(node: Node) -> None:
    with pytest.raises(InputError, match="STS-B is regression"):
        load_task(node("stsb"), 0)


def test_the_embedded_task(node: Node) -> None:
    config = node("embedded", train_size=60, dev_size=41)
    data = load_task(config, 3)
    assert (len(data.train), len(data.fit) + len(data.test)) == (60, 41)
    assert data.truth is not None
    some = load_task({**config, "limit_train": 20}, 3)
    assert set(some.train) < set(data.train)
    assert load_task(config, 4).train != data.train
