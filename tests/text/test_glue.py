"""The classic download's folders, written in miniature in each task's own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.glue import GLUE, glue_task, read_glue
from calib_ebm.text.load import load_task

Write = Callable[..., Path]
Node = Callable[..., dict[str, Any]]

MNLI_START = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\t"
)
MNLI_TRAIN = MNLI_START + "gold_label\n" + "0\t1\t1n\tg\tp\tp\tp\tp\tone\ttwo\tneutral\tneutral\n"
MNLI_DEV_HEADER = MNLI_START + "label2\tlabel3\tlabel4\tlabel5\tgold_label\n"
MNLI_DEV_ROW = "0\t1\t1n\tg\tp\tp\tp\tp\tone\ttwo\tneutral\t{0}\tentailment\t{0}\t{0}\t{0}\n"
MNLI_DEV = MNLI_DEV_HEADER + MNLI_DEV_ROW.format("contradiction")

# Task -> a file of two lines or one, and what it says.
SAMPLES: dict[str, tuple[str, tuple[str, str | None, str]]] = {
    "sst2": ('sentence\tlabel\n" fine \t1\n', ('" fine', None, "positive")),
    "cola": ("gj04\t0\t*\tThem sailed .\n", ("Them sailed .", None, "unacceptable")),
    "mrpc": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t" One\tHe "" said\r\n',
        ('" One', 'He "" said', "equivalent"),
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n",
        ("A.", "B.", "not_entailment"),
    ),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n", ("A.", "B.", "entailment")),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tWhat?\tThis.\tentailment\n",
        ("What?", "This.", "entailment"),
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\tWhy?\tHow?\t0\n",
        ("Why?", "How?", "not_duplicate"),
    ),
    "mnli": (MNLI_DEV, ("one", "two", "contradiction")),
    "mnli_mismatched": (MNLI_DEV, ("one", "two", "contradiction")),
}


def split_of(name: str, split: str, content: str, write: Write) -> tuple[Example, ...]:
    task = GLUE[name]
    for file in task.files.values():
        write(f"glue/{file}", SAMPLES[name][0])
    folder = write(f"glue/{task.files[split]}", content).parent
    return read_glue(task, folder)[split][0]


@pytest.mark.parametrize("name", GLUE)
def test_each_tasks_own_format(name: str, write: Write) -> None:
    content, (text, pair, label) = SAMPLES[name]
    (example,) = split_of(name, "dev", content, write)
    assert example == Example("dev-0", text, pair, GLUE[name].labels.index(label))


def test_mnlis_train_file_has_fewer_annotators(write: Write) -> None:
    (example,) = split_of("mnli", "train", MNLI_TRAIN, write)
    assert example == Example("train-0", "one", "two", 1)


def test_mnli_mismatched_trains_on_mnlis_train_and_reports_the_other_dev(write: Write) -> None:
    write("MNLI/train.tsv", MNLI_TRAIN)
    write("MNLI/dev_matched.tsv", MNLI_DEV)
    path = write("MNLI/dev_mismatched.tsv", MNLI_DEV_HEADER + MNLI_DEV_ROW.format("entailment"))
    matched, mismatched = (read_glue(GLUE[n], path.parent) for n in ("mnli", "mnli_mismatched"))
    assert matched["train"] == mismatched["train"]
    assert (matched["dev"][0][0].label, mismatched["dev"][0][0].label) == (2, 0)


def test_colas_first_line_is_an_example(write: Write) -> None:
    rows = "a\t1\t\tOne.\n" + "b\t0\t*\tTwo.\n"
    assert [e.text for e in split_of("cola", "dev", rows, write)] == ["One.", "Two."]


def test_quoting_never_joins_rows(write: Write) -> None:
    content = SAMPLES["mrpc"][0] + '0\t1\t2\t" open\tnever closed\n1\t1\t2\tnext " row\tone\n'
    assert len(split_of("mrpc", "dev", content, write)) == 3


def test_the_folder_above_will_do(write: Write, node: Node) -> None:
    rows = "".join(f"text {i}\t{i % 2}\n" for i in range(6))
    for file in ("train.tsv", "dev.tsv"):
        path = write(f"GLUE/SST-2/{file}", f"sentence\tlabel\n{file} {rows}")
    tasks = [load_task(node("sst2", data_dir=str(d)), 0) for d in (path.parent, path.parents[1])]
    assert tasks[0] == tasks[1]
    assert len(tasks[0].train) == 6


def test_empty_texts_are_dropped_with_their_labels(write: Write, node: Node) -> None:
    rows = ["one\t0", " \t1", "two\t1", "\t0", "three\t0"]
    path = write("S/dev.tsv", "\n".join(["sentence\tlabel", *rows]))
    write("S/train.tsv", "sentence\tlabel\na\t0\nb\t1\n")
    kept, notes = read_glue(GLUE["sst2"], path.parent)["dev"]
    assert [(e.id, e.text, e.label) for e in kept] == [
        ("dev-0", "one", 0),
        ("dev-2", "two", 1),
        ("dev-4", "three", 0),
    ]
    assert "2 row(s)" in notes[0]
    assert "line 3, 5" in notes[0]
    assert notes[0] in load_task(node("sst2", data_dir=str(path.parent)), 0).notes


def test_qqps_broken_rows_are_dropped_and_counted(write: Write) -> None:
    header, row = SAMPLES["qqp"][0].splitlines()
    rows = [header, row, "10\t3\t4\tBroken by a", "line end?\tHow?\t1", row.replace("0", "1")]
    path = write("QQP/dev.tsv", "\n".join(rows))
    write("QQP/train.tsv", SAMPLES["qqp"][0])
    kept, notes = read_glue(GLUE["qqp"], path.parent)["dev"]
    assert [(e.id, e.label) for e in kept] == [("dev-0", 0), ("dev-3", 1)]
    assert "2 row(s)" in notes[0]
    assert "line 3, 4" in notes[0]


def test_a_qqp_file_of_broken_rows_is_refused(write: Write) -> None:
    content = SAMPLES["qqp"][0] + "broken\n" * 11
    with pytest.raises(InputError, match="11 of 12 rows have not the header's columns"):
        split_of("qqp", "dev", content, write)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n", "line 2: the label is '1'"),
        ("sst2", "sentence\tlabel\nfine\t1\nbad\t2\n", r"dev\.tsv, line 3: the label is '2'"),
        ("sst2", "sentence\tlabel\nfine\t1\nbad\t0\textra\n", r"dev\.tsv, line 3 has 3 columns"),
        ("sst2", "text\tlabel\nfine\t1\n", r"first line is 'text\\tlabel'"),
        ("sst2", "sentence\tlabel\tlabel\nfine\t1\t1\n", "first line is"),
        ("sst2", "", r"dev\.tsv: the first line is ''"),
        ("cola", "sentence\tlabel\nfine\t1\n", r"line 1 has 2 columns[^$]*have no header"),
        ("sst2", "gj04\t1\t\tHeaderless.\n", "the header of sst2: sentence, label"),
    ],
)
def test_what_is_not_the_tasks(name: str, content: str, says: str, write: Write) -> None:
    with pytest.raises(InputError, match=says):
        split_of(name, "dev", content, write)


def test_a_byte_that_is_not_utf8(write: Write) -> None:
    write("S/train.tsv", b"sentence\tlabel\nfine\t1\ncaf\xe9\t0\n")
    path = write("S/dev.tsv", "sentence\tlabel\na\t0\n")
    with pytest.raises(InputError, match=r"train\.tsv, line 3: byte 4"):
        read_glue(GLUE["sst2"], path.parent)


def test_missing_files_are_named_with_what_is_there(write: Write) -> None:
    path = write("S/train.tsv", "sentence\tlabel\n")
    with pytest.raises(InputError, match=r"lacks dev\.tsv; it holds train\.tsv") as error:
        read_glue(GLUE["sst2"], path.parent)
    assert "SST-2" in error.value.allowed
    with pytest.raises(InputError, match=r"lacks dev_matched\.tsv; it holds"):
        read_glue(GLUE["mnli"], path.parent)
    (path.parent / "none").mkdir()
    with pytest.raises(InputError, match=r"lacks dev\.tsv and train\.tsv; it holds nothing"):
        read_glue(GLUE["sst2"], path.parent / "none")
    for not_a_folder in (path, path.parent / "not there"):
        with pytest.raises(InputError, match="is not a folder"):
            read_glue(GLUE["sst2"], not_a_folder)


def test_stsb_is_refused_as_regression() -> None:
    with pytest.raises(InputError, match="STS-B is regression"):
        glue_task("stsb")
    with pytest.raises(InputError, match=r"'sst3'[^$]*sst2 \| cola"):
        glue_task("sst3")


@pytest.mark.parametrize("task", GLUE.values(), ids=GLUE)
def test_records_agree_with_themselves(task: Any) -> None:
    assert {task.text, task.label, task.text_pair or task.text} <= set(task.columns)
    assert len(task.labels) == len(task.written) == len(set(task.written))
    assert (task.text_pair is None) == (task.hub_text_pair is None)
    assert task.metrics[0] == "acc"


def test_each_tasks_own_metric() -> None:
    further = {name: task.metrics[1:] for name, task in GLUE.items() if len(task.metrics) > 1}
    assert further == {"cola": ("mcc",), "mrpc": ("f1",), "qqp": ("f1",)}
