"""From the `task` node of the config to a task that can be trained and measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.files import read_own
from calib_ebm.text.glue import glue_task, read_glue
from calib_ebm.text.splits import check_cut, cut, subset, words
from calib_ebm.text.task import TaskData, digest


def load_task(config: Mapping[str, Any], seed: int) -> TaskData:
    """Read a task, cut its dev set, and check that it can be trained and measured on.

    Args:
        config: the plain, resolved `task` node (see `conf/task`).
        seed: draws the embedded task's training texts; what is read does not depend on it.

    Raises:
        InputError: for whatever a person has to put right.
    """
    source = str(config.get("source"))
    if source not in SOURCES:
        raise InputError(
            f"task.source is {source!r}.", " | ".join(SOURCES), "Set task=sst2 or task=csv, say."
        )
    check_cut(str(config["split"]))
    data = _limited(SOURCES[source](config, seed), config.get("limit_train"))
    for split, examples in (("train", data.train), ("dev", data.fit + data.test)):
        _check_classes(data, split, examples)
    return replace(data, notes=data.notes + _rare_notes(data))


def _glue(config: Mapping[str, Any], _: int) -> TaskData:
    task = glue_task(str(config["name"]))
    folder = config.get("data_dir")
    if folder is None:
        from calib_ebm.text.hub import read_hub

        splits = read_hub(task)
    else:
        splits = read_glue(task, Path(str(folder)).expanduser())
    (train, train_notes), (dev, dev_notes) = splits["train"], splits["dev"]
    parts = cut(str(config["split"]), train, dev)
    return TaskData(
        name=task.name,
        labels=task.labels,
        metrics=task.metrics,
        **parts._asdict(),
        notes=train_notes + dev_notes + _overlap_notes(*parts, dev),
        digests={"train": digest(train), "dev": digest(dev)},
    )


def _own(config: Mapping[str, Any], _: int) -> TaskData:
    labels, train, dev, notes = read_own(config)
    parts = cut(str(config["split"]), train, dev)
    return TaskData(
        name=str(config["name"]),
        labels=labels,
        metrics=("acc",),
        **parts._asdict(),
        notes=notes + _overlap_notes(*parts, dev),
        digests={"train": digest(train), "dev": digest(dev)},
    )


def _embedded(config: Mapping[str, Any], seed: int) -> TaskData:
    from calib_ebm.text.embedded import embedded_task

    return embedded_task(config, seed)


SOURCES: dict[str, Callable[[Mapping[str, Any], int], TaskData]] = {
    "glue": _glue,
    "csv": _own,
    "tsv": _own,
    "jsonl": _own,
    "parquet": _own,
    "embedded": _embedded,
}


def _limited(data: TaskData, limit: Any) -> TaskData:
    """The task with `task.limit_train` training examples, the same for every seed."""
    if limit is None:
        return data
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 2:
        raise InputError(
            f"task.limit_train is {limit}.",
            "a whole number from 2, or null for all",
            "Set task.limit_train=1000.",
        )
    if limit >= len(data.train):
        return data
    train = subset(data.train, limit)
    note = f"train: {limit} of {len(data.train)} examples are used (task.limit_train)."
    digests = {**data.digests, "train": digest(train)}
    return replace(data, train=train, notes=(*data.notes, note), digests=digests)


def _check_classes(data: TaskData, split: str, examples: Sequence[Example]) -> None:
    present = sorted({example.label for example in examples})
    if len(present) < 2:
        only = f"has only the label {data.labels[present[0]]!r}" if present else "is empty"
        raise InputError(
            f"{data.name}: {split} {only} ({len(examples)} examples).",
            f"examples of at least two classes of: {', '.join(data.labels)}",
            f"Give a {split} set with more classes, or check task.label"
            + (" and task.limit_train." if split == "train" else " and task.dev_fraction."),
        )


def _overlap_notes(
    train: Sequence[Example],
    fit: Sequence[Example],
    test: Sequence[Example],
    dev: Sequence[Example],
) -> tuple[str, ...]:
    """What a reader of the numbers should know about the cut."""
    notes = []
    learned = {*map(words, train)}
    if seen := sum(words(example) in learned for example in dev):
        notes.append(f"dev: {seen} of {len(dev)} texts also stand in train.")
    if unused := len(dev) - len(fit) - len(test):
        notes.append(f"dev: {unused} example(s) belong to neither half.")
    if shared := {*map(words, fit)} & {*map(words, test)}:
        notes.append(
            f"dev: {len(shared)} text(s) stand in both halves (hash_halves would not part them)."
        )
    return tuple(notes)


def _rare_notes(data: TaskData) -> tuple[str, ...]:
    """Classes that a part has nothing of."""
    notes = []
    for part, examples in (("train", data.train), ("fit", data.fit), ("test", data.test)):
        count = Counter(example.label for example in examples)
        absent = [name for index, name in enumerate(data.labels) if not count[index]]
        if absent:
            where = part if part == "train" else f"dev's {part} half"
            notes.append(f"{where} has no example of: {', '.join(absent)}.")
    return tuple(notes)
