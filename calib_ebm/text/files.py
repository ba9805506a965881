"""Labelled texts of one's own: csv, tsv, jsonl and Parquet files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.formats import KINDS, Cells, Columns
from calib_ebm.text.labels import found_names, given_names, label_index, label_name
from calib_ebm.text.rows import Reading, Row, as_text, kept, to_examples
from calib_ebm.text.splits import held_out


class OwnData(NamedTuple):
    """What was read of one's own files."""

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    notes: tuple[str, ...]


def read_own(config: Mapping[str, Any]) -> OwnData:
    """Read `task.train` and `task.dev`, or hold dev out of train.

    Args:
        config: the `task` node: `source`, `train`, `dev`, `text`, `text_pair`, `label`,
            `dev_fraction`; optionally `id`, `labels`, `delimiter`.

    Raises:
        InputError: for all that a file can have wrong; see the readers.
    """
    columns = Columns(
        str(config["text"]), config.get("text_pair"), str(config["label"]), config.get("id")
    )
    paths = _paths(config)
    fraction = _fraction(config["dev_fraction"])
    train, train_rows = _rows("train", paths["train"], columns, config)
    rows = list(train_rows)
    if config.get("labels") is not None:
        labels = given_names(config["labels"])
    else:
        labels = found_names((row.label for row in rows), len(rows), train.where)
    examples = to_examples(rows, label_index(labels, "this task", train), train)
    if "dev" in paths:
        dev, dev_rows = _rows("dev", paths["dev"], columns, config)
        dev_examples = to_examples(dev_rows, label_index(labels, "this task", dev), dev)
        return OwnData(labels, examples, dev_examples, train.notes() + dev.notes())
    rest, dev_examples = held_out(examples, fraction)
    note = (
        f"dev: none was given, so {len(dev_examples)} of the {len(examples)} texts of "
        f"{train.where} were held out of train (task.dev_fraction={fraction:g}, by their hashes)."
    )
    return OwnData(labels, rest, dev_examples, (*train.notes(), note))


def _fraction(given: Any) -> float:
    fraction = float(given) if isinstance(given, int | float) else math.nan
    if not 0 < fraction < 1:
        raise InputError(
            f"task.dev_fraction is {given}.", "a number above 0 and below 1", "Set it to 0.2."
        )
    return fraction


def _paths(config: Mapping[str, Any]) -> dict[str, Path]:
    if config.get("train") in (None, "", "???"):
        raise InputError(
            f"task={config['source']} was given no training file.",
            f"a {config['source']} file with a column of texts and one of labels",
            f"Set task.train=, e.g. task.train=mine{KINDS[config['source']].endings[0]}.",
        )
    given = {split: config.get(split) for split in ("train", "dev")}
    paths = {split: Path(str(p)).expanduser() for split, p in given.items() if p is not None}
    for split, path in paths.items():
        _check_path(split, path, str(config["source"]))
    if "dev" in paths and paths["dev"].samefile(paths["train"]):
        raise InputError(
            f"task.dev and task.train are the same file, {paths['train']}.",
            "a dev file of other texts than train's",
            "Leave task.dev unset to hold a part of train out.",
        )
    return paths


def _check_path(split: str, path: Path, source: str) -> None:
    if not path.is_file():
        raise InputError(
            f"task.{split}={path} is {'a folder' if path.is_dir() else 'not there'}.",
            f"a {source} file",
            f"Correct the path (it is taken from the folder {Path.cwd()}).",
        )
    endings = KINDS[source].endings
    if path.suffix.lower() not in endings:
        others = [name for name, kind in KINDS.items() if path.suffix.lower() in kind.endings]
        to_do = f"Set task={others[0]}" if others else f"Convert or rename the file to {endings[0]}"
        raise InputError(
            f"task.{split}={path} has the ending {path.suffix or '(none)'}, and task={source}.",
            f"for {source}: {', '.join(endings)}",
            f"{to_do}.",
        )


def _rows(
    split: str, path: Path, columns: Columns, config: Mapping[str, Any]
) -> tuple[Reading, Iterator[Row]]:
    kind = KINDS[config["source"]]
    reading = Reading(split, str(path), kind.unit)
    cells = kind.read(path, columns, reading, str(config.get("delimiter") or ","))
    first = next(cells, None)
    if first is None:
        raise InputError(
            f"task.{split}={path} holds no rows.", "a file with labelled texts", "Check the file."
        )
    rows = kept(_unlabelled(chain([first], cells), columns, reading), reading)
    if columns.label is None or (columns.label_may_be_absent and "label" not in first.cells):
        return reading, rows
    return reading, _labelled(rows, columns, reading)


def _unlabelled(cells: Iterator[Cells], columns: Columns, reading: Reading) -> Iterator[Row]:
    for position, (number, cell) in enumerate(cells):
        name = str(position) if columns.id is None else label_name(cell["id"])
        text = as_text(cell["text"], columns.text, reading, number)
        pair = None
        if columns.text_pair is not None:
            pair = as_text(cell["text_pair"], columns.text_pair, reading, number)
        yield Row(number, f"{reading.split}-{name}", text, pair, cell.get("label"))


def _labelled(rows: Iterator[Row], columns: Columns, reading: Reading) -> Iterator[Row]:
    """One spelling for each label.  Empty texts are gone already, with whatever label they had."""
    for row in rows:
        if isinstance(row.label, list | dict | bytes) or not label_name(row.label):
            raise InputError(
                f"{reading.at(row.number)}: no label in {columns.label!r} ({row.label!r}).",
                "a word or a number for every text",
                "Label the row or take it out, or set task.label to the column of labels.",
            )
        yield row._replace(label=label_name(row.label))


def read_set(
    path: Path,
    columns: Mapping[str, str | None],
    labels: tuple[str, ...],
    *,
    label_may_be_absent: bool = False,
    setting: str = "data",
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """A file of further texts, labelled or not, for a task that is known already.

    Args:
        path: a csv, tsv, jsonl or Parquet file; its ending says which.
        columns: names of the columns `text`, `text_pair` (or None) and `label` (or None, where
            labels are not to be read).
        labels: class names of the task. A file that numbers them from 0 is understood too.
        label_may_be_absent: a file without the column of labels has none; texts then have the
            label -1, as they do where the whole column says -1.
        setting: what the file was given as, for ids and for errors.

    Returns:
        the texts, and notes on what was left out.

    Raises:
        InputError: for all that a file can have wrong; see the readers.
    """
    kinds = [name for name, kind in KINDS.items() if path.suffix.lower() in kind.endings]
    if not kinds or not path.is_file():
        raise InputError(
            f"{setting}={path} is {'not there' if not path.exists() else 'no file of texts'}.",
            "a csv, tsv, jsonl or parquet file",
            f"Correct the path (it is taken from the folder {Path.cwd()}).",
        )
    wanted = Columns(
        str(columns["text"]), columns.get("text_pair"), columns["label"], None, label_may_be_absent
    )
    reading, found = _rows(setting, path, wanted, {"source": kinds[0]})
    rows = list(found)
    if all(row.label in (None, "-1") for row in rows) and "-1" not in labels:
        return to_examples(rows, lambda _: -1, reading), reading.notes()
    numbers = tuple(str(index) for index in range(len(labels)))
    present = {row.label for row in rows}
    # A task whose own names are numbers keeps them: of three stars, 1 and 2 are not 0 and 1.
    names = numbers if present & {*numbers} and not present & {*labels} else labels
    examples = to_examples(rows, label_index(names, "this task", reading), reading)
    return examples, reading.notes()
