"""What all commands share: settings composed by Hydra, errors as sentences, exit codes.

    0  done        2  something a person has to put right        3  training cannot go on
    130  stopped by Ctrl-C; the same command goes on
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from calib_ebm.config_path import conf_dir
from calib_ebm.errors import InputError, Interrupted, TrainingFailed
from calib_ebm.ranks import is_first_process

Task = Callable[[dict[str, Any]], None]


def say(line: str) -> None:
    """A line for the person, from the first process only."""
    if is_first_process():
        print(line, flush=True)


def noise_default(lm: str, small: Any, pretrained: Any) -> Any:
    """A setting of the noise model that depends on whether it is trained from scratch."""
    return small if lm == "small" else pretrained


def run_command(config_name: str, task: Task) -> None:
    """Compose the settings `config_name` from the command line and hand them to `task` as plain values."""
    OmegaConf.register_new_resolver("noise_default", noise_default, replace=True)

    def job(config: DictConfig) -> None:
        code = _guarded(task, config)
        if code:
            sys.exit(code)

    job.__module__ = "__main__"
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(job)()


def _guarded(task: Task, config: DictConfig) -> int:
    """Run the task; give the exit code, with the error said on stderr."""
    # Reports of each loaded weight and advice to developers are not for the person who waits.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        task(_plain(config))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TrainingFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"\nstopped: {stop or 'the same command goes on from here.'}", file=sys.stderr)
        return 130
    return 0


def _plain(config: DictConfig) -> dict[str, Any]:
    """Resolved settings as plain values.

    Raises:
        InputError: for a setting that must be given and is not, or cannot be resolved.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise InputError(
            f"No value was given for {', '.join(missing)}.",
            "a value for each",
            "Add " + " ".join(f"{key}=..." for key in missing) + " to the command.",
        )
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(
            f"The settings cannot be resolved: {str(error).splitlines()[0]}",
            "settings as in conf/",
            "Look at them with --cfg job.",
        ) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def show_report(folder: Path) -> None:
    """Print the table of metrics, where the report is and, last, the run folder."""
    from rich.console import Console

    from calib_ebm.report.console import summary_table

    console = Console()
    Console(width=None if console.is_terminal else 79).print(summary_table(folder))
    say(f"report: {folder / 'report.html'}")
    say(f"run folder: {folder}")
