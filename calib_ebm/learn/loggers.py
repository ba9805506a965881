"""Where logged numbers go: history.csv always, and a dashboard by choice."""

from __future__ import annotations

import importlib.util
import logging
import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from calib_ebm.errors import InputError

DASHBOARDS: dict[str, str | None] = {"csv": None, "wandb": "wandb", "tensorboard": "tensorboard"}
"""Kinds of dashboard and the packages they need."""
WANDB_HOME = "https://api.wandb.ai"
"""Where W&B is, unless WANDB_BASE_URL says otherwise."""


def build_dashboard(
    config: Mapping[str, Any], run_dir: Path, record: Mapping[str, Any]
) -> Logger | None:
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
        board = TensorBoardLogger(run_dir, name="tensorboard", version="", default_hp_metric=False)
        board.log_hyperparams(dict(record))
        return board
    return None


# ------------------------------------------------------------------------------------------- W&B


class RunOnWandb(WandbLogger):
    """A W&B run that ends with our run: the next run of the same process is another one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Lightning gives it always, and W&B warns of it always.
        self._wandb_init.pop("anonymous", None)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send, or write, what is left; a training that failed ends the run."""
        super().finalize(status)
        if status != "success":
            self.finish(1)

    def finish(self, exit_code: int = 0) -> None:
        """End the run, where one was begun."""
        # Not the property, which would begin one.
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


def _wandb(config: Mapping[str, Any], run_dir: Path, record: Mapping[str, Any]) -> Logger:
    asked = os.environ.get("WANDB_MODE")
    offline = asked in ("offline", "dryrun")
    if asked not in ("offline", "dryrun", "disabled") and not has_wandb_login():
        # Asking for a login would hang a job that nobody watches.
        offline = True
        logging.getLogger(__name__).warning(
            "W&B: no login was found, so this run is kept offline.\n  Send it later with: "
            "wandb sync %s",
            run_dir / "wandb" / "offline-run-*",
        )
    # As an option of this run: in the environment it would hold for the next run too.
    mode = {"mode": "offline"} if offline else {}
    if offline:
        # Its announcements are of a run that somebody can look at.
        os.environ.setdefault("WANDB_SILENT", "true")
    chosen = [record[group]["name"] for group in ("task", "energy", "noise") if group in record]
    return RunOnWandb(
        project=config.get("project") or "calib_ebm",
        name=config.get("name") or run_dir.resolve().name,
        id=_run_id(run_dir),
        # W&B's own process may stand in another folder.
        save_dir=str(run_dir.resolve()),
        config=dict(record),
        group=chosen[0] if chosen else None,
        tags=[str(name) for name in chosen],
        **mode,
    )


def finish_dashboard(dashboard: Logger | None, metrics: Mapping[str, float]) -> None:
    """Show what was measured at the end beside the curves, and end the run there.

    Args:
        dashboard: that of the training, or None.
        metrics: as in metrics.json.
    """
    if isinstance(dashboard, RunOnWandb):
        # Not as points of curves: they belong to the run and not to a step.
        dashboard.experiment.summary.update(dict(metrics))
        dashboard.finish()
    elif isinstance(dashboard, TensorBoardLogger):
        # Beside the settings, where TensorBoard compares runs; ends of intervals stay in the file.
        values = {name: value for name, value in metrics.items() if not _is_end(name)}
        dashboard.log_hyperparams(dashboard.hparams, values)
        dashboard.finalize("success")


def _is_end(name: str) -> bool:
    return name.endswith(("/low", "/high"))


def _run_id(run_dir: Path) -> str:
    """The id of a run on W&B, kept in its folder: what is resumed is the same run there too."""
    kept = run_dir / "wandb" / "id.txt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(secrets.token_hex(4) + "\n", encoding="ascii")
    return kept.read_text(encoding="ascii").strip()


def has_wandb_login() -> bool:
    """Whether a key is at hand: in the environment, or left in netrc by `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or WANDB_HOME).hostname or ""
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
