"""What tests that train have in common: a module and a trainer that writes and says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.optimisation import OptimOptions
from calib_ebm.loss.joint import JointLoss
from calib_ebm.shapes import JointBatch


def as_it_is(joint: JointBatch) -> JointBatch:
    """Lengths stay on the host."""
    return joint


def loader_of(batches: Sequence[JointBatch]) -> DataLoader[Any]:
    """One batch after another, as they are."""
    return DataLoader(batches, batch_size=None, collate_fn=as_it_is)  # type: ignore[arg-type]


def module_of(
    net: EnergyNetwork,
    loss: JointLoss,
    optim: OptimOptions,
    kind: type[JointModule] = JointModule,
    **further: Any,
) -> JointModule:
    """Of three classes."""
    return kind(net, loss, optim, classes=3, metrics=("acc",), seed=1, length_groups=3, **further)


def quiet_trainer(accelerator: str = "cpu", **further: Any) -> pl.Trainer:
    """On one device."""
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        **further,
    )
