"""Measuring a finished run again: other texts, another calibrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from calib_ebm.classifier import FACTS, EnergyClassifier
from calib_ebm.errors import InputError
from calib_ebm.learn.folder import read_config
from calib_ebm.learn.measure import Measured, check_calibration, score_set, write_measurements
from calib_ebm.learn.quiet import quieten
from calib_ebm.learn.record import RunRecorder, command_line, git_commit, versions
from calib_ebm.report.files import (
    CONFIG,
    METRICS,
    PREDICTIONS,
    REPORT,
    RUN,
    TRUTH,
    write_text_atomic,
)
from calib_ebm.report.page import write_report
from calib_ebm.report.texts import FILE as TEXTS
from calib_ebm.shapes import Encoded
from calib_ebm.text.files import read_set
from calib_ebm.text.load import load_task
from calib_ebm.text.task import TaskData, digest
from calib_ebm.tokens.tokenizer import encode_examples

Config = Mapping[str, Any]

EVALUATION = "evaluation"
"""The entry of config.yaml that tells an evaluation from a run."""
FILES = (METRICS, PREDICTIONS, REPORT, TRUTH, TEXTS, RUN, CONFIG)
"""What an evaluation writes. The settings go last, by which it is known for what it is."""
TASK_KEYS = frozenset({"name", "source", "split"})
"""Without these no task can be read."""


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
    quieten()
    run_dir = Path(str(config["run"])).expanduser()
    run_config = _run_config(run_dir)
    classifier = EnergyClassifier.from_pretrained(run_dir / "model")
    task, name, notes = _task(config, run_config, classifier)
    check_calibration(config["calibrator"], task)
    notes += _changed_since(run_dir, task)
    out = _folder_for(config, run_dir, name)
    seed = int(run_config["seed"])
    write_text_atomic(out / CONFIG, yaml.safe_dump(run_config | {EVALUATION: dict(config)}))
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
        seed=seed,
        data_digests=dict(task.digests),
        status="running",
    )
    encoded, cut = _encoded(classifier, task)
    notes += cut
    recorder.note(*notes)
    for note in notes:
        say(f"note: {note}")
    say(f"{len(task.fit)} texts to calibrate on, {len(task.test)} to report on.")
    with recorder.stage("measure"):
        measured = Measured(
            score_set(classifier, encoded["fit"]), score_set(classifier, encoded["test"]), None
        )
        calibrator = write_measurements(
            out, task, measured, config["calibrator"], {}, per_text=1, seed=seed
        )
    recorder.note(*calibrator.notes)
    recorder.set(
        temperature=calibrator.temperature, calibrator=calibrator.state(), status="complete"
    )
    write_report(out)
    return out


def _encoded(
    classifier: EnergyClassifier, task: TaskData
) -> tuple[dict[str, list[Encoded]], tuple[str, ...]]:
    """Both halves as the model takes them, and what had to be cut."""
    encoded, notes = {}, []
    for half, examples in (("fit", task.fit), ("test", task.test)):
        encoded[half], cut = encode_examples(classifier.tokenizer, examples)
        if cut:
            notes.append(
                f"{cut} of {len(examples)} texts of {half} were longer than the model's "
                f"{classifier.tokenizer.max_length} tokens and were cut."
            )
    return encoded, tuple(notes)


def _folder_for(config: Config, run_dir: Path, name: str) -> Path:
    """The folder to write to, rid of an earlier evaluation.

    Raises:
        InputError: when a run, or something else, lies there.
    """
    given = config["out"]
    out = run_dir / "evaluations" / name if given is None else Path(str(given)).expanduser()
    there = [file for file in (*FILES, "model", FACTS) if (out / file).exists()]
    if there and EVALUATION not in (read_config(out / CONFIG) if CONFIG in there else {}):
        raise InputError(
            f"{out} holds {', '.join(there)}, which no evaluation wrote.",
            "an empty folder, or one of an earlier evaluation, which is replaced",
            "Give another folder with out=..., or leave it out.",
        )
    out.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (out / file).unlink(missing_ok=True)
    return out


def _run_config(run_dir: Path) -> dict[str, Any]:
    """The settings of a finished run, which may be a stranger's: plain data, nothing is executed.

    Raises:
        InputError: when there is no finished run, or its settings are not those of one.
    """
    needed = (CONFIG, f"model/{FACTS}")
    absent = [name for name in needed if not (run_dir / name).is_file()]
    if absent:
        there = "there is no such folder"
        if run_dir.is_dir():
            there = f"it has no {absent[0]}"
        raise InputError(
            f"run={run_dir} is no finished run: {there}.",
            f"a folder with {CONFIG} and model/, as python -m calib_ebm.train writes it",
            "Give the path that train printed last, or let that run finish.",
        )
    config = read_config(run_dir / CONFIG)
    task, seed = config.get("task"), config.get("seed")
    if not (isinstance(task, dict) and isinstance(seed, int) and {*task} >= TASK_KEYS):
        raise InputError(
            f"{run_dir / CONFIG} holds no seed, or no task with {', '.join(sorted(TASK_KEYS))}.",
            "the settings as python -m calib_ebm.train writes them",
            "Give the folder of a run of this package.",
        )
    return config


def _changed_since(run_dir: Path, task: TaskData) -> tuple[str, ...]:
    """A note when the run's data are no longer what it was trained on."""
    before = RunRecorder(run_dir, active=False).facts.get("data_digests")
    if not isinstance(before, dict):
        return ()
    changed = [split for split, digest in before.items() if task.digests.get(split) != digest]
    if not changed:
        return ()
    return (f"the run's {' and '.join(changed)} data have changed since it was trained.",)


def _task(
    config: Config, run_config: dict[str, Any], classifier: EnergyClassifier
) -> tuple[TaskData, str, tuple[str, ...]]:
    """The run's own task, with the test half replaced when a file was given."""
    task_config = dict(run_config["task"])
    if config["data_dir"] is not None:
        task_config |= _moved(task_config, Path(str(config["data_dir"])).expanduser())
    try:
        own = load_task(task_config, int(run_config["seed"]))
    except InputError as error:
        raise InputError(
            f"The run's own data, on which its calibrator is fitted, are not to be had: "
            f"{error.given}",
            error.allowed,
            "Say where they are with data_dir=..., or put them back.",
        ) from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The task in {CONFIG} cannot be read ({type(error).__name__}: {error}).",
            "the settings as python -m calib_ebm.train writes them",
            "Give the folder of a run of this package.",
        ) from error
    if own.labels != classifier.labels:
        raise InputError(
            f"The task's classes are now {', '.join(own.labels)}, and the model's "
            f"{', '.join(classifier.labels)}.",
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


def _moved(task_config: Config, folder: Path) -> dict[str, str]:
    """The task's settings that say where its data are, when these lie in another folder now."""
    files = {
        name: str(folder / Path(str(task_config[name])).name)
        for name in ("train", "dev")
        if task_config.get(name) is not None
    }
    return files or {"data_dir": str(folder)}
