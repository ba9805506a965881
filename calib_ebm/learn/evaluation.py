"""Measuring a finished run again: other texts, another calibrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from calib_ebm.classifier import FACTS, EnergyClassifier
from calib_ebm.errors import InputError
from calib_ebm.learn.measure import Measured, score_set, write_measurements
from calib_ebm.learn.record import RunRecorder, command_line, git_commit, versions
from calib_ebm.report.files import CONFIG, write_text_atomic
from calib_ebm.report.page import write_report
from calib_ebm.text.files import read_set
from calib_ebm.text.load import load_task
from calib_ebm.text.task import TaskData, digest
from calib_ebm.tokens.tokenizer import encode_examples

Config = Mapping[str, Any]


def evaluate_run(config: Config, say: Callable[[str], None]) -> Path:
    """Score the run's fit half and the texts to report on, and write a folder as a run's.

    Args:
        config: resolved settings of `conf/evaluate.yaml`.
        say: takes lines for the person.

    Returns:
        the folder with metrics.json, predictions.parquet, report.html and the rest.

    Raises:
        InputError: when the run has no model, or for whatever is wrong with the file.
    """
    run_dir = Path(str(config["run"])).expanduser()
    run_config = _run_config(run_dir)
    classifier = EnergyClassifier.from_pretrained(run_dir / "model")
    task, name, notes = _task(config, run_config, classifier)
    out = Path(str(config["out"])) if config["out"] else run_dir / "evaluations" / name
    out.mkdir(parents=True, exist_ok=True)
    write_text_atomic(out / CONFIG, yaml.safe_dump(run_config | {"evaluation": dict(config)}))
    recorder = RunRecorder(out)
    recorder.set(
        command=command_line(),
        versions=versions(),
        git_commit=git_commit(),
        task=task.name,
        labels=list(task.labels),
        metrics=list(task.metrics),
        energy=classifier.energy_name,
        noise=None,
        seed=int(run_config["seed"]),
        data_digests=dict(task.digests),
        status="running",
        stages={},
    )
    recorder.note(*notes)
    for note in notes:
        say(f"note: {note}")
    say(f"{len(task.fit)} texts to calibrate on, {len(task.test)} to report on.")
    with recorder.stage("measure"):
        scored = {
            half: score_set(classifier, encode_examples(classifier.tokenizer, texts)[0])
            for half, texts in (("fit", task.fit), ("test", task.test))
        }
        temperature, further = write_measurements(
            out,
            task,
            Measured(scored["fit"], scored["test"], None),
            config["calibrator"],
            {},
            per_text=1,
            seed=int(run_config["seed"]),
        )
    recorder.note(*further)
    recorder.set(temperature=temperature, status="complete")
    write_report(out)
    return out


def _run_config(run_dir: Path) -> dict[str, Any]:
    if not (run_dir / CONFIG).is_file() or not (run_dir / "model" / FACTS).is_file():
        there = ", ".join(sorted(p.name for p in run_dir.iterdir())) if run_dir.is_dir() else ""
        raise InputError(
            f"run={run_dir} is no finished run"
            + (f"; it holds {there or 'nothing'}." if run_dir.is_dir() else "; there is no such folder."),
            f"a folder with {CONFIG} and model/, as python -m calib_ebm.train writes it",
            "Give the path that train printed last, or let that run finish.",
        )
    with (run_dir / CONFIG).open(encoding="utf-8") as file:
        loaded = yaml.safe_load(file)
    return dict(loaded)


def _task(
    config: Config, run_config: dict[str, Any], classifier: EnergyClassifier
) -> tuple[TaskData, str, tuple[str, ...]]:
    """The run's own task, with the test half replaced when a file was given."""
    task_config = dict(run_config["task"])
    if config["data_dir"] is not None:
        task_config["data_dir"] = config["data_dir"]
    own = load_task(task_config, int(run_config["seed"]))
    if own.labels != classifier.labels:
        raise InputError(
            f"The task's classes are now {list(own.labels)}, and the model's {list(classifier.labels)}.",
            "the data that the run was made with",
            "Give its folder with data_dir=...",
        )
    calibrator = str(config["calibrator"]["name"])
    if config["data"] is None:
        return own, f"test-{calibrator}", own.notes
    path = Path(str(config["data"])).expanduser()
    columns = {
        "text": config["text"] or task_config.get("text") or "sentence",
        "text_pair": config["text_pair"] or task_config.get("text_pair"),
        "label": config["label"] or task_config.get("label") or "label",
    }
    examples, notes = read_set(path, columns, own.labels)
    other = replace(
        own,
        test=examples,
        notes=notes,
        digests={**own.digests, path.name: digest(examples)},
        truth=None,
    )
    return other, f"{path.stem}-{calibrator}", notes
