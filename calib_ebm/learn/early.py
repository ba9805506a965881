"""What can be known before torch is imported, which takes seconds, is said before that.

A run that is finished, settings out of their range, files that are absent or cannot be read.
Nothing that this imports may import torch: `tests/commands/test_early.py` looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.learn.folder import is_complete, open_run, run_folder
from calib_ebm.learn.record import RunRecorder
from calib_ebm.noise.modes import build_mode, check_texts
from calib_ebm.noise.order import check_per_text
from calib_ebm.text.load import load_task
from calib_ebm.text.task import TaskData

Config = Mapping[str, Any]
Say = Callable[[str], None]

SHORTEST = 8
"""Tokens: less than this holds no text between its special tokens."""


class ReadTask(NamedTuple):
    """A task, and the seconds that reading it took."""

    task: TaskData
    seconds: float


def begin(config: Config, say: Say) -> ReadTask | None:
    """The task of a run that is to be done; None, and a sentence, when it is finished already.

    Raises:
        InputError: for settings that cannot be, and files that cannot be read.
    """
    folder = run_folder(config)
    return None if finished(config, folder, say) else read_task(config)


def finished(config: Config, folder: Path, say: Say) -> bool:
    """Whether the folder holds this run, finished; it is said.

    Raises:
        InputError: when it holds a finished run of other settings or other data.
    """
    if config["overwrite"] or not is_complete(folder):
        return False
    open_run(config, folder)
    _check_finished(config, folder)
    say("This run is finished already; nothing was done (overwrite=true runs it again).")
    return True


def _check_finished(config: Config, folder: Path) -> None:
    """Whether the data of a finished run are still those it was made with, if they can be read."""
    try:
        digests = load_task(config["task"], int(config["seed"])).digests
    except InputError:
        # Moved or out of reach: the run's results stand all the same.
        return
    require_same_data(RunRecorder(folder, active=False).facts.get("data_digests"), digests, folder)


def require_same_data(
    before: Mapping[str, str] | None, now: Mapping[str, str], folder: Path
) -> None:
    """Refuse to go on with other data under the same settings.

    Raises:
        InputError: naming the part that has changed.
    """
    changed = sorted(name for name in now if before and before.get(name) != now[name])
    if changed:
        raise InputError(
            f"The {' and '.join(changed)} data are not those that the run in {folder} began with.",
            "the same data, with which a run goes on",
            "Give another folder with run_dir=..., or add overwrite=true to replace that run.",
        )


def read_task(config: Config) -> ReadTask:
    """Check the settings and read the task.

    Raises:
        InputError: for settings that cannot be, and files that cannot be read.
    """
    start = time.perf_counter()
    check_settings(config)
    task = load_task(config["task"], int(config["seed"]))
    if config["energy"]["name"] != "none":
        check_texts(build_mode(config["noise"]), task.train[0].text_pair is not None, task.name)
    return ReadTask(task, time.perf_counter() - start)


def check_settings(config: Config) -> None:
    """Refuse what needs no data to be refused.

    Raises:
        InputError: naming the setting.
    """
    _check_encoder(config)
    _check_training(config)
    if config["energy"]["name"] != "none":
        build_mode(config["noise"])
        check_per_text(config["noise"]["per_text"])
        _check_folder("noise.lm", str(config["noise"]["lm"]))


def _check_encoder(config: Config) -> None:
    max_length = int(config["task"]["max_length"])
    if max_length < SHORTEST:
        raise InputError(
            f"task.max_length is {max_length}.",
            f"a whole number from {SHORTEST}",
            "Set task.max_length=128.",
        )
    _check_folder("encoder.name_or_path", str(config["encoder"]["name_or_path"]))


def _check_folder(setting: str, value: str) -> None:
    """Refuse a path to a model that is not there; what may be a Hub id is asked for later."""
    folder = Path(value)
    if folder.is_dir() and not (folder / "config.json").is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:12])
        raise InputError(
            f"{setting}={value} holds no config.json; it holds: {there or 'nothing'}.",
            "a folder with a model and its tokenizer as transformers saves them",
            "Check the folder.",
        )
    is_path = folder.is_absolute() or value.startswith((".", "~"))
    if is_path and not folder.is_dir():
        raise InputError(
            f"{setting}={value} is no folder.",
            "a folder as transformers saves it, a Hub id, or 'small'",
            f"Correct the path (it is taken from the folder {Path.cwd()}).",
        )


def _check_training(config: Config) -> None:
    optim, trainer = config["optim"], config["trainer"]
    _require_positive("optim.batch_size", optim["batch_size"], "optim.batch_size=32")
    _require_positive("optim.lr", optim["lr"], "optim.lr=2e-5")
    if trainer["max_steps"] is None and trainer["epochs"] is None:
        raise InputError(
            "Neither trainer.max_steps nor trainer.epochs is given.",
            "one of them",
            "Set trainer.epochs=3.",
        )
    _require_positive("trainer.length_groups", trainer["length_groups"], "trainer.length_groups=4")
    for name in ("max_steps", "epochs"):
        if trainer[name] is not None:
            _require_positive(f"trainer.{name}", trainer[name], f"trainer.{name}=3")
    _require_positive("optim.length_window", optim["length_window"], "optim.length_window=50")


def _require_positive(name: str, value: Any, example: str) -> None:
    if not isinstance(value, int | float) or not value > 0:
        raise InputError(f"{name} is {value!r}.", "a number above 0", f"Set {example}.")
