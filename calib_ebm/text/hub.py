"""GLUE from the Hub.  The only file that imports `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calib_ebm.errors import InputError
from calib_ebm.hub import answers
from calib_ebm.text.glue import GlueTask, Split
from calib_ebm.text.labels import label_index
from calib_ebm.text.rows import Reading, Row, kept, to_examples

REPOSITORY = "nyu-mll/glue"


def read_hub(task: GlueTask) -> dict[str, Split]:
    """Train and dev of a task from the Hub, or from what was kept of an earlier download.

    Raises:
        InputError: when neither can be had, or the Hub's copy is not as the record says.
    """
    splits = _load(task)
    return {split: _read_split(task, split, splits) for split in task.hub_splits}


def _load(task: GlueTask) -> Any:
    import datasets

    hub_name = task.hub_name or task.name
    with _offline(not answers()):
        try:
            return datasets.load_dataset(REPOSITORY, hub_name)
        # Each layer below has errors of its own (network, cache, disk, authorization): all of them
        # mean the same to the person, and the first line of the cause is shown.
        except Exception as error:
            cause = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"{REPOSITORY} ({hub_name}) could not be had: {type(error).__name__}: {cause}",
                "a connection to the Hub, a copy kept from an earlier run, or a folder",
                f"Set task.data_dir= to the classic GLUE download's folder {task.folder}, "
                "or run this once with network.",
            ) from error


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """While it lasts, `datasets` goes to its cache at once if `wanted`."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _read_split(task: GlueTask, split: str, splits: Any) -> Split:
    hub_split = task.hub_splits[split]
    reading = Reading(split, f"{REPOSITORY} ({task.hub_name or task.name}, {hub_split})", "row")
    if hub_split not in splits:
        raise _unlike(reading, f"there are {', '.join(splits)}", f"a split {hub_split}")
    table = splits[hub_split]
    columns = [c for c in (task.hub_text, task.hub_text_pair, "label") if c is not None]
    missing = [column for column in columns if column not in table.features]
    if missing:
        raise _unlike(reading, f"the columns are {', '.join(table.features)}", ", ".join(columns))
    names = tuple(getattr(table.features["label"], "names", ()))
    if names != task.labels:
        raise _unlike(reading, f"its labels are {', '.join(names)}", ", ".join(task.labels))
    rows = kept(_rows(task, table, reading, names), reading)
    return to_examples(rows, label_index(task.labels, task.name, reading), reading), reading.notes()


def _unlike(reading: Reading, found: str, allowed: str) -> InputError:
    return InputError(
        f"{reading.where} is not as expected: {found}.",
        allowed,
        "Set task.data_dir= to a folder of the classic GLUE download instead.",
    )


def _rows(task: GlueTask, table: Any, reading: Reading, names: tuple[str, ...]) -> Iterator[Row]:
    position = 0
    for batch in table.iter(batch_size=1000):
        texts = batch[task.hub_text]
        pairs = batch[task.hub_text_pair] if task.hub_text_pair else [None] * len(texts)
        for text, text_pair, index in zip(texts, pairs, batch["label"], strict=True):
            label = names[index] if index in range(len(names)) else str(index)
            pair = None if task.hub_text_pair is None else text_pair or ""
            yield Row(position + 1, f"{reading.split}-{position}", text or "", pair, label)
            position += 1
