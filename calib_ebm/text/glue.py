"""GLUE's classification tasks as records, and the reader of the classic download's folders.

One record a task: where its texts and labels stand in the Hub's copy and in the tab-separated files
of the classic download.  Adding a task is adding a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.labels import label_index
from calib_ebm.text.rows import RAGGED, Reading, Row, kept, ragged, to_examples, tsv_lines

Split = tuple[tuple[Example, ...], tuple[str, ...]]
"""Examples of one split, and notes on what was dropped."""
MOST_RAGGED = 0.01
"""Share of broken rows above which a file is taken for the wrong one."""


@dataclass(frozen=True)
class GlueTask:
    """One task of GLUE."""

    name: str
    folder: str
    """Name of the classic download's folder."""
    columns: tuple[str, ...]
    """Columns that the header of the tab-separated files must have."""
    text: str
    text_pair: str | None
    label: str
    labels: tuple[str, ...]
    """Names in index order, as the Hub has them."""
    written: tuple[str, ...]
    """How the files write them, in the same order."""
    hub_text: str
    hub_text_pair: str | None
    metrics: tuple[str, ...] = ("acc",)
    hub_name: str | None = None
    """Name of the Hub's configuration where it is not `name`."""
    hub_dev: str = "validation"
    dev_file: str = "dev.tsv"
    has_header: bool = True
    skips_ragged: bool = False
    """The download has rows that were broken in the making; they are dropped and counted."""
    trap: str = ""
    """What is known to mislead in this task."""

    @property
    def files(self) -> dict[str, str]:
        """Split -> file name."""
        return {"train": "train.tsv", "dev": self.dev_file}

    @property
    def hub_splits(self) -> dict[str, str]:
        """Split -> the Hub's name of it."""
        return {"train": "train", "dev": self.hub_dev}


_INDEXED_PAIR = ("index", "sentence1", "sentence2", "label")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = GlueTask(
    name="mnli",
    folder="MNLI",
    columns=("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "gold_label"),
    text="sentence1",
    text_pair="sentence2",
    label="gold_label",
    labels=("entailment", "neutral", "contradiction"),
    written=("entailment", "neutral", "contradiction"),
    hub_text="premise",
    hub_text_pair="hypothesis",
    hub_dev="validation_matched",
    dev_file="dev_matched.tsv",
    trap="the files of dev also have each annotator's label; gold_label is the one that counts",
)
_TASKS = (
    GlueTask(
        name="sst2",
        folder="SST-2",
        columns=("sentence", "label"),
        text="sentence",
        text_pair=None,
        label="label",
        labels=("negative", "positive"),
        written=("0", "1"),
        hub_text="sentence",
        hub_text_pair=None,
        trap="train is phrases, dev is whole sentences",
    ),
    GlueTask(
        name="cola",
        folder="CoLA",
        columns=("source", "label", "mark", "sentence"),
        has_header=False,
        text="sentence",
        text_pair=None,
        label="label",
        labels=("unacceptable", "acceptable"),
        written=("0", "1"),
        hub_text="sentence",
        hub_text_pair=None,
        metrics=("acc", "mcc"),
        trap="the first line is an example: the files have no header",
    ),
    GlueTask(
        name="mrpc",
        folder="MRPC",
        columns=("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        text="#1 String",
        text_pair="#2 String",
        label="Quality",
        labels=("not_equivalent", "equivalent"),
        written=("0", "1"),
        hub_text="sentence1",
        hub_text_pair="sentence2",
        metrics=("acc", "f1"),
        trap="quotes are letters: a reader of CSV swallows rows",
    ),
    GlueTask(
        name="rte",
        folder="RTE",
        columns=_INDEXED_PAIR,
        text="sentence1",
        text_pair="sentence2",
        label="label",
        labels=_ENTAILMENT,
        written=_ENTAILMENT,
        hub_text="sentence1",
        hub_text_pair="sentence2",
    ),
    GlueTask(
        name="wnli",
        folder="WNLI",
        columns=_INDEXED_PAIR,
        text="sentence1",
        text_pair="sentence2",
        label="label",
        labels=("not_entailment", "entailment"),
        written=("0", "1"),
        hub_text="sentence1",
        hub_text_pair="sentence2",
        trap="dev repeats train's sentences with the other label: below .5 is normal",
    ),
    GlueTask(
        name="qnli",
        folder="QNLI",
        columns=("index", "question", "sentence", "label"),
        text="question",
        text_pair="sentence",
        label="label",
        labels=_ENTAILMENT,
        written=_ENTAILMENT,
        hub_text="question",
        hub_text_pair="sentence",
    ),
    GlueTask(
        name="qqp",
        folder="QQP",
        columns=("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        skips_ragged=True,
        text="question1",
        text_pair="question2",
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        written=("0", "1"),
        hub_text="question1",
        hub_text_pair="question2",
        metrics=("acc", "f1"),
        trap="some questions contain a line end, which breaks their rows",
    ),
    _MNLI,
    # Trains on mnli's train, so that it shares its noise; reports the dev set of other genres.
    replace(
        _MNLI,
        name="mnli_mismatched",
        hub_name="mnli",
        hub_dev="validation_mismatched",
        dev_file="dev_mismatched.tsv",
    ),
)
GLUE = {task.name: task for task in _TASKS}


def glue_task(name: str) -> GlueTask:
    """The record by its name.

    Raises:
        InputError: for STS-B, which is regression, and for a name that GLUE does not have.
    """
    if name in GLUE:
        return GLUE[name]
    allowed = " | ".join(GLUE)
    if name == "stsb":
        raise InputError(
            "STS-B is regression: its labels are similarities from 0 to 5, not classes.",
            f"the classification tasks of GLUE: {allowed}",
            "Choose one of these, or cut the scores into classes and give the file to task=tsv.",
        )
    raise InputError(
        f"task.name is {name!r}, which is no task of GLUE.", allowed, "Set task=sst2, for example."
    )


def read_glue(task: GlueTask, data_dir: Path) -> dict[str, Split]:
    """Train and dev of a task from its folder of the classic download, or from the folder above it.

    Raises:
        InputError: for missing files, a header or a label that is not the task's, a row with other
            columns than the header, or a file that is not UTF-8.
    """
    folder = _find_folder(task, data_dir)
    return {split: _read_split(task, split, folder / file) for split, file in task.files.items()}


def _find_folder(task: GlueTask, data_dir: Path) -> Path:
    needed = set(task.files.values())
    if not data_dir.is_dir():
        raise InputError(
            f"task.data_dir={data_dir} is not a folder.",
            f"the classic GLUE download's folder {task.folder}",
            "Set task.data_dir to that folder, or leave it unset to take the task from the Hub.",
        )
    for folder in (data_dir, data_dir / task.folder):
        if all((folder / name).is_file() for name in needed):
            return folder
    missing = sorted(name for name in needed if not (data_dir / name).is_file())
    there = sorted(path.name for path in data_dir.iterdir())
    shown = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "") if there else "nothing"
    raise InputError(
        f"task.data_dir={data_dir} lacks {' and '.join(missing)}; it holds {shown}.",
        f"the classic GLUE download's folder {task.folder} with {' and '.join(sorted(needed))}",
        f"Set task.data_dir to that folder for {task.name}.",
    )


def _read_split(task: GlueTask, split: str, path: Path) -> Split:
    reading = Reading(split, str(path))
    rows = kept(_rows(task, path, reading), reading)
    examples = to_examples(rows, label_index(task.written, task.name, reading), reading)
    return examples, reading.notes()


def _rows(task: GlueTask, path: Path, reading: Reading) -> Iterator[Row]:
    lines = tsv_lines(path)
    header = _header(task, path, lines) if task.has_header else list(task.columns)
    text, label = header.index(task.text), header.index(task.label)
    pair = None if task.text_pair is None else header.index(task.text_pair)
    position, broken = -1, 0
    for position, (number, cells) in enumerate(lines):
        if len(cells) != len(header):
            if not task.skips_ragged:
                raise ragged(reading, number, len(cells), len(header), _ragged_help(task))
            broken += 1
            reading.leave_out(RAGGED, number)
            continue
        text_pair = None if pair is None else cells[pair]
        yield Row(number, f"{reading.split}-{position}", cells[text], text_pair, cells[label])
    if broken > max(10, MOST_RAGGED * (position + 1)):
        raise InputError(
            f"{path}: {broken} of {position + 1} rows have not the header's columns.",
            f"{', '.join(header)}, separated by tabs (a few broken rows are dropped)",
            f"Check that this is {task.folder}'s file, complete and as downloaded.",
        )


def _ragged_help(task: GlueTask) -> str:
    header = "" if task.has_header else f" {task.folder}'s files have no header."
    return f"Check that this is {task.folder}'s file, complete and as downloaded.{header}"


def _header(task: GlueTask, path: Path, lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, header = next(lines, (1, []))
    if any(header.count(column) != 1 for column in task.columns):
        shown = "\t".join(header)[:100]
        raise InputError(
            f"{path}: the first line is {shown!r}.",
            f"the header of {task.name}: {', '.join(task.columns)} (separated by tabs)",
            f"Set task.data_dir to the classic GLUE download's folder {task.folder}.",
        )
    return header
