"""Moves the gate of the noise's weight after each step, by the cross-entropy of all processes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.team import added_up, here
from calib_ebm.loss.gate import LabelGate


class MoveGate(Callback):
    """After each step: all parts of one, on whichever process, have the same weight.

    Args:
        gate: of the module's loss.
    """

    def __init__(self, gate: LabelGate) -> None:
        self.gate = gate

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Follow what the step has shown."""
        if self.gate.step_ce is not None:
            self.gate.follow(added_up(self.gate.step_ce.clone()) / here().world)


def gate_callbacks(module: JointModule) -> list[Callback]:
    """The callback that the module's loss needs; none where its weight waits for nothing."""
    gate = module.loss.gate
    return [MoveGate(gate)] if gate is not None else []
