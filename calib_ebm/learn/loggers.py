"""Where logged numbers go: history.csv always, and a dashboard by choice."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger

from calib_ebm.errors import InputError


def build_dashboard(config: Mapping[str, Any], run_dir: Path, record: Mapping[str, Any]) -> Logger | None:
    """The dashboard named in `config`, or None.

    Args:
        config: `kind` (csv, wandb or tensorboard) and its options.
        run_dir: the run's folder; dashboards write below it.
        record: the resolved configuration, shown beside the curves.

    Raises:
        InputError: for an unknown kind or a package that is not installed.
    """
    kind = str(config["kind"])
    if kind not in DASHBOARDS:
        raise InputError(
            f"logger.kind is {kind!r}.", ", ".join(DASHBOARDS), "Choose one, e.g. logger=csv."
        )
    package = DASHBOARDS[kind]
    if package is not None and importlib.util.find_spec(package) is None:
        raise InputError(
            f"logger={kind} needs the package {package}, which is not installed.",
            ", ".join(DASHBOARDS),
            f"Install it (pip install 'calib-ebm[{package}]'), or take logger=csv.",
        )
    if kind == "wandb":
        return _wandb(config, run_dir, record)
    if kind == "tensorboard":
        return TensorBoardLogger(run_dir, name="tensorboard", version="", default_hp_metric=False)
    return None


DASHBOARDS: dict[str, str | None] = {"csv": None, "wandb": "wandb", "tensorboard": "tensorboard"}
"""Kinds of dashboard and the packages they need."""


def _wandb(config: Mapping[str, Any], run_dir: Path, record: Mapping[str, Any]) -> Logger:
    # Asking for a login would hang a job that nobody watches: without one, write offline.
    offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not _wandb_login()
    if offline:
        os.environ["WANDB_MODE"] = "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(
        project=config.get("project") or "calib_ebm",
        name=config.get("name") or run_dir.name,
        save_dir=str(run_dir),
        offline=offline,
        config=dict(record),
    )


def _wandb_login() -> bool:
    """Whether a key is at hand: in the environment, or left in netrc by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.exists() and "wandb" in netrc.read_text(encoding="utf-8", errors="replace")
