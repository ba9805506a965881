"""A finished run, read again: its settings, its task, what it predicted. Nothing is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from calib_ebm.errors import InputError
from calib_ebm.learn.checked import whole_number
from calib_ebm.learn.folder import read_config
from calib_ebm.learn.record import RunRecorder
from calib_ebm.names import CONFIG, FACTS, RUN
from calib_ebm.text.corrupt import parse_corruption
from calib_ebm.text.load import load_task
from calib_ebm.text.task import TaskData

Config = Mapping[str, Any]

TASK_KEYS = frozenset({"name", "source", "split"})
"""Without these no task can be read."""

NEW = ("data", "corrupt", "ood", "mc_dropout")
"""Settings of `evaluate` that stored tables cannot answer."""


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder and the settings that it was made with."""

    path: Path
    config: dict[str, Any]

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config["seed"])


def check_asked(config: Config) -> None:
    """Refuse, before torch is imported, what `evaluate` cannot begin with.

    Raises:
        InputError: when run or table is not given, or both are; for a run that is not finished, a
            file of texts that is not there, a corruption that is none, a number that is none.
    """
    if (config["table"] is None) == (config["run"] is None):
        given = "Neither run nor table is" if config["run"] is None else "Both run and table are"
        raise InputError(
            f"{given} given.",
            "run, a finished run's folder, whose model then scores texts; or table, a run's folder "
            "or any file of predictions, for which no model is needed",
            "Add e.g. run=runs/... or table=predictions.csv.",
        )
    find_paths(config["table"], "table")
    runs = find_paths(config["run"], "run", holding=CONFIG)
    if len(runs) == 1 or any(config[name] is not None for name in NEW):
        for path in runs:  # whose models are needed
            open_run(path)
    for path in find_paths(config["data"], "data"):
        if not path.is_file():
            raise InputError(
                f"data={path} is {'no file of texts' if path.exists() else 'not there'}.",
                "a csv, tsv, jsonl or parquet file",
                f"Correct the path (it is taken from the folder {Path.cwd()}).",
            )
    for corruption in listed(config["corrupt"]):
        parse_corruption(corruption)
    for name in ("threads", "tokens_per_pass"):
        whole_number(config, name)


def open_run(path: Path) -> FinishedRun:
    """The settings of a finished run, which may be a stranger's: plain data.

    Raises:
        InputError: when there is no finished run, or its settings are not those of one.
    """
    needed = (CONFIG, f"model/{FACTS}")
    absent = [name for name in needed if not (path / name).is_file()]
    if absent:
        there = "there is no such folder"
        if path.is_dir():
            there = f"it has no {absent[0]}"
        raise InputError(
            f"run={path} is no finished run: {there}.",
            f"a folder with {CONFIG} and model/, as python -m calib_ebm.train writes it",
            "Give the path that train printed last, or let that run finish.",
        )
    config = read_config(path / CONFIG)
    task, seed = config.get("task"), config.get("seed")
    if not (isinstance(task, dict) and isinstance(seed, int) and {*task} >= TASK_KEYS):
        raise InputError(
            f"{path / CONFIG} holds no seed, or no task with {', '.join(sorted(TASK_KEYS))}.",
            "the settings as python -m calib_ebm.train writes them",
            "Give the folder of a run of this package.",
        )
    return FinishedRun(path, config)


def listed(value: Any) -> tuple[str, ...]:
    """A setting that may be one thing, several with commas between, or a list, as a tuple.

    >>> listed("a, b"), listed(["a,b"]), listed(None)
    (('a', 'b'), ('a,b',), ())
    """
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(str(item) for item in value)
    return tuple(item.strip() for item in str(value).split(",") if item.strip())


def find_paths(given: Any, setting: str, holding: str | None = None) -> tuple[Path, ...]:
    """The paths that a setting names, patterns such as runs/* included, each once.

    Args:
        given: the setting's value.
        setting: its name, for errors.
        holding: a file that a folder found by a pattern must have to be taken.

    Raises:
        InputError: for a pattern that nothing matches.
    """
    paths: list[Path] = []
    for item in listed(given):
        named = str(Path(item).expanduser())
        if not has_magic(named) or Path(named).exists():
            paths.append(Path(named))
            continue
        found = sorted(Path(match) for match in glob(named))  # noqa: PTH207  (absolute ones too)
        found = [path for path in found if holding is None or (path / holding).is_file()]
        if not found:
            raise InputError(
                f"{setting}={item} matches nothing"
                + ("." if holding is None else f" that has a {holding}."),
                "paths, or patterns such as runs/*, with commas between them",
                f"Correct it (paths are taken from the folder {Path.cwd()}).",
            )
        paths += found
    return tuple(dict.fromkeys(paths))


def own_task(run: FinishedRun, data_dir: Any, labels: Sequence[str]) -> TaskData:
    """The task that a run was made with, read again.

    Args:
        run: the run.
        data_dir: where its data are now; None where they were.
        labels: the classes that its model knows.

    Raises:
        InputError: when the data are not to be had, or have other classes.
    """
    task_config = dict(run.config["task"])
    if data_dir is not None:
        task_config |= _moved(task_config, Path(str(data_dir)).expanduser())
    try:
        task = load_task(task_config, run.seed)
    except InputError as error:
        raise InputError(
            f"The run's own data, on which its calibrator is fitted, are not to be had: "
            f"{error.given}",
            error.allowed,
            "Say where they are with data_dir=..., or put them back; table=... measures what the "
            "run has stored, without them.",
        ) from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The task in {CONFIG} cannot be read ({type(error).__name__}: {error}).",
            "the settings as python -m calib_ebm.train writes them",
            "Give the folder of a run of this package.",
        ) from error
    if task.labels != tuple(labels):
        raise InputError(
            f"The task's classes are now {', '.join(task.labels)}, and the model's "
            f"{', '.join(labels)}.",
            "the data that the run was made with",
            "Give its folder with data_dir=...",
        )
    return task


def changed_since(run: FinishedRun, task: TaskData) -> tuple[str, ...]:
    """A note when the run's data are no longer what it was trained on."""
    before = RunRecorder(run.path, active=False).facts.get("data_digests")
    if not isinstance(before, dict):
        return ()
    changed = [split for split, digest in before.items() if task.digests.get(split) != digest]
    if not changed:
        return ()
    return (f"the run's {' and '.join(changed)} data have changed since it was trained.",)


def is_run(path: Path) -> bool:
    """Whether a folder holds what a run or an evaluation writes first."""
    return (path / CONFIG).is_file() and (path / RUN).is_file()


def _moved(task_config: Config, folder: Path) -> dict[str, str]:
    """The task's settings that say where its data are, when these lie in another folder now."""
    files = {
        name: str(folder / Path(str(task_config[name])).name)
        for name in ("train", "dev")
        if task_config.get(name) is not None
    }
    return files or {"data_dir": str(folder)}
