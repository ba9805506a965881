"""The stage that trains: a Lightning trainer around the joint module, resumable at any step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import DDPStrategy

from calib_ebm.errors import InputError
from calib_ebm.learn.callbacks import WRITING, KeepLast, LineProgress, StepBar
from calib_ebm.learn.checkpoints import checkpoint_step, find_checkpoint
from calib_ebm.learn.data import JointData
from calib_ebm.learn.history import HistoryLogger
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.poscal import table_callbacks
from calib_ebm.learn.sharding import Sharded

JOINT_NUMBERS = {"ce": "loss/ce", "nce": "loss/nce", "gap": "energy/gap", "ece": "val/cal/ece"}
"""What stands beside the progress bar."""

Say = Callable[[str], None]
PATIENCE = timedelta(minutes=10)
"""After which a process that waits for another gives up; one that has died is noticed earlier."""


def precision(wanted: str) -> Any:
    """The precision to compute in: bf16 where the device has it, when `auto`."""
    if wanted != "auto":
        return wanted
    # Not where it is emulated, on GPUs before Ampere.
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bf16 else "32-true"


def progress(what: str, numbers: dict[str, str], say: Say) -> Callback:
    """A bar on a terminal, lines elsewhere."""
    return StepBar(what, numbers) if sys.stderr.isatty() else LineProgress(what, numbers, say)


def build_strategy(config: Mapping[str, Any]) -> Any:
    """The strategy of `trainer.strategy`; what is not ours goes to Lightning by its name."""
    name = config["strategy"]
    backend = "gloo" if config["accelerator"] == "cpu" else None
    if name == "ddp":
        return DDPStrategy(process_group_backend=backend, timeout=PATIENCE)
    if name == "fsdp":
        return Sharded(backend, PATIENCE)
    return name


def build_trainer(
    config: Mapping[str, Any],
    *,
    steps: int,
    folder: Path,
    loggers: list[Logger],
    callbacks: list[Callback],
) -> pl.Trainer:
    """A Lightning trainer that counts in steps and leaves samplers and checkpoints to us.

    Raises:
        InputError: when the machine has not what `trainer=` asks for.
    """
    if config.get("threads"):
        torch.set_num_threads(int(config["threads"]))
    return bare_trainer(
        config,
        max_steps=steps,
        gradient_clip_val=config["gradient_clip_val"],
        val_check_interval=max(1, steps // max(1, int(config["measurements"]))),
        # The training is one epoch to Lightning, whose count over epochs is one too high after
        # a checkpoint written at the start of a step; its count within the epoch is right.
        check_val_every_n_epoch=1,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(int(config["log_every"]), steps)),
        logger=loggers or False,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=any(isinstance(c, StepBar) for c in callbacks),
    )


def bare_trainer(config: Mapping[str, Any], **further: Any) -> pl.Trainer:
    """A Lightning trainer on what `trainer=` names; it starts nothing before it fits.

    Args:
        config: the `trainer` group.
        further: of Lightning's trainer.

    Raises:
        InputError: when the machine has not what `trainer=` asks for.
    """
    options = {"logger": False, "enable_progress_bar": False, **further}
    try:
        return pl.Trainer(
            accelerator=config["accelerator"],
            devices=config["devices"],
            num_nodes=config["num_nodes"],
            strategy=build_strategy(config),
            precision=precision(str(config["precision"])),
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **options,
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError) as error:
        raise InputError(
            f"trainer cannot be built: {str(error).splitlines()[0]}",
            "trainer=auto, cpu, gpu, ddp, ddp_cpu, fsdp or fsdp_cpu, with devices that this "
            "machine has",
            "Choose trainer=auto, or correct the trainer.* setting that is named.",
        ) from error


def fit(
    module: JointModule,
    data: JointData,
    trainer_config: Mapping[str, Any],
    folder: Path,
    dashboard: Logger | None,
    say: Say,
    note: Say,
) -> pl.Trainer:
    """Train to the end, from the last whole checkpoint in `folder` if there is one.

    Args:
        module: what is trained; holds the final weights afterwards.
        data: its batches.
        trainer_config: the `trainer` group.
        folder: the run's folder; history.csv and checkpoints go there.
        dashboard: a logger beside history.csv, or None.
        say: takes lines for the person.
        note: takes sentences that the run shall keep, a broken checkpoint's.

    Raises:
        Interrupted: on Ctrl-C; the checkpoint to go on from is written.
        TrainingFailed: on a non-finite loss; the last good checkpoint is kept.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    history = HistoryLogger(folder / "history.csv")
    resume, broken = find_checkpoint(checkpoints)
    if broken:
        note(broken)
    if resume is not None:
        step = checkpoint_step(resume)
        history.take_up(step)
        say(f"Going on at step {step} of {data.total_steps}.")
    asked = trainer_config["checkpoint_every"]
    every = int(asked or data.total_steps // 20)
    trainer = build_trainer(
        trainer_config,
        steps=data.total_steps,
        folder=folder,
        loggers=[history, *([dashboard] if dashboard is not None else [])],
        callbacks=[
            KeepLast(checkpoints, every, share=None if asked else WRITING),
            # Behind it, so that a checkpoint is of the end of the step before.
            *table_callbacks(module, data),
            progress("training", JOINT_NUMBERS, say),
        ],
    )
    # TQDM reads the width of the terminal once; a pipe has none.
    os.environ.setdefault("COLUMNS", "80")
    # Pretrained models are loaded in evaluation mode, and Lightning would leave their dropout off.
    module.train()
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer
