"""The Hub's copy, with `datasets.load_dataset` replaced by tables in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text import hub
from calib_ebm.text.glue import GLUE
from calib_ebm.text.hub import read_hub
from calib_ebm.text.load import load_task

Node = Callable[..., dict[str, Any]]


def table(task: Any, rows: list[tuple[str | None, str | None, int]]) -> Dataset:
    columns: dict[str, Any] = {task.hub_text: [row[0] for row in rows]}
    kinds: dict[str, Any] = {task.hub_text: Value("string")}
    if task.hub_text_pair:
        columns[task.hub_text_pair] = [row[1] for row in rows]
        kinds[task.hub_text_pair] = Value("string")
    columns["label"] = [row[2] for row in rows]
    kinds["label"] = ClassLabel(names=list(task.labels))
    return Dataset.from_dict(columns, features=Features(kinds))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """Say what the Hub answers, an exception being raised; get the list of what it is asked."""

    def start(answer: Any) -> list[Any]:
        asked: list[Any] = []

        def load_dataset(*names: str) -> Any:
            asked.append((*names, datasets.config.HF_HUB_OFFLINE))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "answers", lambda: True)
        return asked

    return start


@pytest.mark.parametrize("name", GLUE)
def test_every_task(name: str, serve: Any) -> None:
    task = GLUE[name]
    last = len(task.labels) - 1
    train = table(task, [(f"text {i} ", f"pair {i}", i % 2) for i in range(5)])
    dev = table(task, [("dev text", "dev pair", last), (" ", "pair", 0), (None, None, 0)])
    asked = serve(DatasetDict({"train": train, task.hub_dev: dev, "test": dev}))
    splits = read_hub(task)
    pair = "dev pair" if task.text_pair else None
    assert splits["dev"][0] == (Example("dev-0", "dev text", pair, last),)
    assert "2 row(s)" in splits["dev"][1][0]
    assert [e.text for e in splits["train"][0]] == [f"text {i}" for i in range(5)]
    assert [e.label for e in splits["train"][0]] == [0, 1, 0, 1, 0]
    configuration = "mnli" if name.startswith("mnli") else name
    assert asked == [("nyu-mll/glue", configuration, False)]


def test_rows_are_counted_over_batches(serve: Any) -> None:
    task = GLUE["sst2"]
    rows = [(f"text {i}", None, i % 2) for i in range(2500)]
    serve(DatasetDict({"train": table(task, rows), "validation": table(task, rows)}))
    train = read_hub(task)["train"][0]
    assert [e.id for e in train] == [f"train-{i}" for i in range(2500)]
    assert [e.label for e in train] == [i % 2 for i in range(2500)]


def test_load_task_goes_to_the_hub_without_data_dir(node: Node, serve: Any) -> None:
    task = GLUE["cola"]
    train = table(task, [(f"text {i}", None, i % 2) for i in range(5)])
    dev = table(task, [(f"dev {i}", None, i % 2) for i in range(5)])
    serve(DatasetDict({"train": train, "validation": dev}))
    data = load_task(node("cola"), 0)
    assert (len(data.train), len(data.fit), len(data.test)) == (5, 2, 3)
    assert data.metrics == ("acc", "mcc")


def test_without_network_and_copy_one_sentence_says_what_to_do(serve: Any, node: Node) -> None:
    asked = serve(ConnectionError("Couldn't reach it\nsecond line"))
    with pytest.raises(InputError) as error:
        load_task(node("rte"), 0)
    assert error.value.given.endswith("ConnectionError: Couldn't reach it")
    assert "task.data_dir=" in error.value.to_do
    assert "RTE" in error.value.to_do
    assert len(asked) == 1


def test_a_hub_that_does_not_answer_sends_datasets_to_its_cache(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(OSError("no copy"))
    monkeypatch.setattr(hub, "answers", lambda: False)
    with pytest.raises(InputError):
        read_hub(GLUE["rte"])
    assert asked == [("nyu-mll/glue", "rte", True)]
    assert datasets.config.HF_HUB_OFFLINE is False  # put back


def test_the_real_thing_without_network_is_refused_in_one_sentence(node: Node) -> None:
    with pytest.raises(InputError, match=r"nyu-mll/glue \(sst2\) could not be had"):
        load_task(node("sst2"), 0)


def test_a_copy_that_is_not_as_the_record_says(serve: Any) -> None:
    task = GLUE["sst2"]
    good = table(task, [("a", None, 0), ("b", None, 1)])
    swapped = good.cast_column("label", ClassLabel(names=["positive", "negative"]))
    for train, says in (
        (good.rename_column("sentence", "text"), "the columns are"),
        (swapped, "its labels are positive, negative"),
    ):
        serve(DatasetDict({"train": train, "validation": good}))
        with pytest.raises(InputError, match=says):
            read_hub(task)
    serve(DatasetDict({"train": good}))
    with pytest.raises(InputError, match="there are train"):
        read_hub(task)


def test_a_text_without_a_label_is_refused(serve: Any) -> None:
    task = GLUE["sst2"]
    good = table(task, [("a", None, 0), ("b", None, 1)])
    hidden = table(task, [("a", None, 0), ("b", None, -1)])
    serve(DatasetDict({"train": good, "validation": hidden}))
    with pytest.raises(InputError, match=r"validation\), row 2: the label is '-1'"):
        read_hub(task)
