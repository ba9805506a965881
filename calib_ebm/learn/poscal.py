"""Keeps the table of posterior-calibrated training: counts, shares them among ranks, refreshes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from calib_ebm.learn.data import JointData, evaluation_loader
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.team import added_up
from calib_ebm.loss.poscal import PosCal, bin_counts


class KeepTable(Callback):
    """Refreshes a `PosCal` table at fixed steps, so that a resumed run does what another does.

    The counts of all ranks are added up at each step: every rank holds the same table, and the one
    that writes the checkpoint writes that of all.

    Args:
        poscal: the loss whose table it is.
        data: where training texts are scored anew from, with `table=rescored`.
    """

    def __init__(self, poscal: PosCal, data: JointData) -> None:
        self.poscal, self.data = poscal, data
        self.every = max(1, round(data.order.steps_per_epoch / poscal.refreshes_per_epoch))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Refresh when it is time."""
        if trainer.global_step % self.every:
            return
        if self.poscal.table == "rescored":
            self.poscal.refresh(self._rescored(trainer, pl_module))
        elif trainer.global_step > 0:
            self.poscal.refresh(self.poscal.seen_2CM)
            self.poscal.seen_2CM.zero_()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add what this step has seen, of all ranks."""
        counts = self.poscal.batch_counts
        if self.poscal.table == "recent" and counts is not None:
            self.poscal.seen_2CM += added_up(counts)

    @torch.no_grad()
    def _rescored(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
        """Counts of the whole training set, without dropout."""
        assert isinstance(pl_module, JointModule)
        loader = evaluation_loader(
            self.data.tokenizer,
            self.data.train,
            self.data.eval_batch_size,
            trainer.global_rank,
            trainer.world_size,
        )
        counts = torch.zeros_like(self.poscal.seen_2CM)
        pl_module.network.eval()
        with trainer.precision_plugin.forward_context():
            for batch in loader:
                here = trainer.strategy.batch_to_device(batch)
                logits_BC = pl_module.scored_logits(here.tokens).float()
                counts += bin_counts(logits_BC.softmax(dim=-1), here.label_B, self.poscal.bins)
        pl_module.network.train()
        return added_up(counts)


def table_callbacks(module: JointModule, data: JointData) -> list[Callback]:
    """The callback that the module's label loss needs; none where it keeps no table."""
    label = module.loss.label
    return [KeepTable(label, data)] if isinstance(label, PosCal) else []
