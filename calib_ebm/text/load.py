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
from calib_ebm.text.splits import CutOptions, Parts, check_cut, cut, subset, words
from calib_ebm.text.task import TaskData, TaskTexts


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
    texts = _limited(SOURCES[source](config, seed), config.get("limit_train"))
    parts = cut(str(config["split"]), texts.train, texts.dev, _options(config))
    data = TaskData(
        name=texts.name,
        labels=texts.labels,
        metrics=texts.metrics,
        **parts._asdict(),
        notes=texts.notes + _cut_notes(str(config["split"]), texts, parts),
        digests=texts.digests,
        truth=texts.truth,
    )
    for split, examples in (("train", data.train), ("dev", texts.dev)):
        _check_classes(data, split, examples)
    return replace(data, notes=data.notes + _rare_notes(data))


def _options(config: Mapping[str, Any]) -> CutOptions:
    """What the cut is told; runs of before these settings existed have none of them."""
    return CutOptions(**{key: config[key] for key in CutOptions._fields if key in config})


def _glue(config: Mapping[str, Any], _: int) -> TaskTexts:
    task = glue_task(str(config["name"]))
    folder = config.get("data_dir")
    if folder is None:
        from calib_ebm.text.hub import read_hub

        splits = read_hub(task)
    else:
        splits = read_glue(task, Path(str(folder)).expanduser())
    (train, train_notes), (dev, dev_notes) = splits["train"], splits["dev"]
    return TaskTexts(task.name, task.labels, task.metrics, train, dev, train_notes + dev_notes)


def _own(config: Mapping[str, Any], _: int) -> TaskTexts:
    labels, train, dev, notes = read_own(config)
    return TaskTexts(str(config["name"]), labels, ("acc",), train, dev, notes)


def _embedded(config: Mapping[str, Any], seed: int) -> TaskTexts:
    from calib_ebm.text.embedded import embedded_task

    return embedded_task(config, seed)


SOURCES: dict[str, Callable[[Mapping[str, Any], int], TaskTexts]] = {
    "glue": _glue,
    "csv": _own,
    "tsv": _own,
    "jsonl": _own,
    "parquet": _own,
    "embedded": _embedded,
}


def _limited(data: TaskTexts, limit: Any) -> TaskTexts:
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
    return replace(data, train=train, notes=(*data.notes, note))


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


def _cut_notes(name: str, texts: TaskTexts, parts: Parts) -> tuple[str, ...]:
    """What a reader of the numbers should know about the cut.

    Nothing of this is said of the embedded task: a language that short sentences are drawn from
    repeats itself, and its error is known without labels.
    """
    notes = []
    learned = {*map(words, parts.train)}
    seen = sum(words(example) in learned for example in texts.dev)
    if seen and texts.truth is None:
        notes.append(f"dev: {seen} of {len(texts.dev)} texts also stand in train.")
    if name == "train_holdout":
        notes.append(
            f"train: {len(parts.fit)} of {len(texts.train)} texts are held out to fit calibrators "
            "on (task.holdout_fraction); all of dev is reported."
        )
        return tuple(notes)
    if parts.folds is not None:
        notes.append(
            f"dev: all {len(parts.test)} texts are reported, each of {len(set(parts.folds))} folds "
            "after a calibrator fitted on the other folds. The calibrator saved with the model is "
            "fitted on all of dev, so the figures are those of its like, not its own."
        )
        return tuple(notes)
    if unused := len(texts.dev) - len(parts.fit) - len(parts.test):
        half = len(texts.dev) // 2
        leaks = half - len(parts.fit) if name == "file_halves" else 0
        if unused - leaks:
            notes.append(f"dev: {unused - leaks} example(s) belong to neither half.")
        if leaks:
            notes.append(
                f"dev: {leaks} text(s) of the first half also stand in the second, and are fitted "
                "on nowhere."
            )
    return tuple(notes)


def _rare_notes(data: TaskData) -> tuple[str, ...]:
    """Classes that a part has nothing of."""
    notes = []
    for part, examples in (("train", data.train), ("fit", data.fit), ("test", data.test)):
        count = Counter(example.label for example in examples)
        absent = [name for index, name in enumerate(data.labels) if not count[index]]
        if absent:
            where = part if part == "train" else f"the {part} half"
            notes.append(f"{where} has no example of: {', '.join(absent)}.")
    return tuple(notes)
