"""The run's folder: which one it is, whether it can be gone on with, whether it is finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from calib_ebm import __version__
from calib_ebm.durable import write_text
from calib_ebm.errors import InputError
from calib_ebm.lock import only_one
from calib_ebm.names import CONFIG, REPORT, RUN

NOT_OF_THE_RUN = ("run_dir", "cache_dir", "overwrite", "logger", "hydra")
"""Settings that change where things go, but no number."""
WHERE_IT_RUNS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "workers",
    "threads",
    "checkpoint_every",
    "graphs",
)
"""Of `trainer`: what a run that was begun with others goes on with: on fewer processes, say."""
PRODUCTS = (
    "config.yaml",
    "run.json",
    "metrics.json",
    "history.csv",
    "predictions.parquet",
    "energies.parquet",
    "noise_samples.jsonl",
    "truth.parquet",
    "texts.parquet",
    "report.html",
    "model",
    "model.part",
    "checkpoints",
    "evaluations",
    "tensorboard",
    "wandb",
)
"""What a run writes, and `overwrite=true` removes; nothing else in the folder is touched."""

Config = Mapping[str, Any]


def settings_digest(config: Config) -> str:
    """Eight hexadecimal digits: of the settings that change numbers, and the package's version."""
    kept = _kept(config)
    if isinstance(kept.get("trainer"), Mapping):
        trainer = {k: value for k, value in kept["trainer"].items() if k not in WHERE_IT_RUNS}
        kept["trainer"] = trainer
    text = json.dumps([__version__, kept], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_folder(config: Config) -> Path:
    """The folder of a run: as given, else one that the same settings always lead to."""
    if config.get("run_dir"):
        return Path(str(config["run_dir"])).expanduser()
    energy = str(config["energy"]["name"])
    parts = [str(config["task"]["name"]), energy]
    if energy != "none":
        parts.append(str(config["noise"]["name"]))
    if str(config["loss"]["name"]) != "cross_entropy":
        parts.append(str(config["loss"]["name"]))
    parts += [f"seed{config['seed']}", settings_digest(config)]
    return Path("runs") / "-".join(parts)


def hold_run(folder: Path, say: Callable[[str], None]) -> ExitStack:
    """The right to write a run folder; waits while another process is at work in it.

    Raises:
        InputError: when it cannot be written.
    """
    held = ExitStack()
    try:
        held.enter_context(only_one(folder, say, inside=True))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return held


def open_run(config: Config, folder: Path) -> None:
    """Make the folder for a run with these settings, or take up what such a run left there.

    Raises:
        InputError: when it holds a run with other settings, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if config.get("overwrite"):
            _clear(folder)
        existing = folder / CONFIG
        if existing.exists():
            _require_same(config, existing)
            return
        write_text(existing, yaml.safe_dump(dict(config), sort_keys=False))
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"The run folder {folder} cannot be written ({error.strerror or error}).",
        "a folder that this user may write, on a disk with space left",
        "Give another with run_dir=...",
    )


def _clear(folder: Path) -> None:
    """Remove what a run wrote; of a folder that is no run's, nothing.

    Raises:
        InputError: when files of those names lie in a folder that holds no run.
    """
    there = [name for name in PRODUCTS if (folder / name).exists()]
    if there and not {"task", "energy", "seed"} <= {*_settings_there(folder)}:
        raise InputError(
            f"{folder} holds {', '.join(there)}, but no run of calib_ebm, and overwrite=true was "
            "given.",
            "an empty folder, or one of a run",
            "Give another folder with run_dir=..., or move these away yourself.",
        )
    for name in there:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _settings_there(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    return read_config(path) if path.is_file() else {}


def is_complete(folder: Path) -> bool:
    """Whether the run there has come to its end."""
    try:
        facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return facts.get("status") == "complete" and (folder / REPORT).exists()


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a config.yaml: data, of which nothing is executed.

    Raises:
        InputError: when it is not a mapping in plain YAML.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _broken(path, (str(error).splitlines() or [""])[0]) from error
    if not isinstance(loaded, dict):
        raise _broken(path, "it does not hold names with values")
    return {str(key): value for key, value in loaded.items()}


def _broken(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} cannot be read as a run's settings: {why}.",
        "the file as python -m calib_ebm.train writes it, in plain YAML",
        "Choose another folder, or, if nothing in this one is needed, remove it.",
    )


def _require_same(config: Config, path: Path) -> None:
    there = read_config(path)
    differences = {*_differences(_kept(there), _kept(config))}
    changed = sorted(differences - {f"trainer.{name}" for name in WHERE_IT_RUNS})
    if changed:
        raise InputError(
            f"{path.parent} holds a run with other settings ({', '.join(changed[:6])}"
            f"{' ...' if len(changed) > 6 else ''}).",
            "an empty folder, or one of a run with the very same settings, which then goes on, on "
            "other devices too",
            "Give another folder with run_dir=..., or add overwrite=true to replace that run.",
        )


def _kept(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in NOT_OF_THE_RUN}


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """Dotted names of the settings that differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
    elif old != new:
        yield at
