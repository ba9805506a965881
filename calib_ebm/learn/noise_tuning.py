"""Tuning the noise model: the loss on what it shall write, masks drawn anew every epoch.  METHOD 2.

Everything random is a function of (seed, step) or of (seed, epoch, text): the batch of a step, its
masks, its dropout. So tuning that was interrupted goes on, and ends with the very weights it would
have had. Several processes share each batch; the loss is that of the whole batch, a mean over its
targets, of which one process may have more than another.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from calib_ebm.errors import InputError, TrainingFailed
from calib_ebm.learn.callbacks import WRITING, KeepLast, StepBar
from calib_ebm.learn.checkpoints import find_checkpoint
from calib_ebm.learn.fit import bare_trainer
from calib_ebm.learn.joint import mixed_seed
from calib_ebm.learn.noise_batches import LmBatch, LmBatches
from calib_ebm.learn.noise_perplexity import nll_sum, perplexity
from calib_ebm.learn.optimisation import OptimOptions, build_optimizer, count_steps
from calib_ebm.learn.team import ALONE, Team
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.modes import Lengths, Mode
from calib_ebm.noise.tuned import TuningResult
from calib_ebm.shapes import Encoded
from calib_ebm.tokens.order import Place, StepBatches, TrainOrder

ONE = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
"""The `trainer` group where one process tunes."""


class NoiseTuning(pl.LightningModule):
    """Tunes a noise model.

    Args:
        lm: the noise model, changed in place.
        optim: optimiser and schedule.
        seed: of dropout.
    """

    tokens: Tensor
    """Target tokens trained on so far."""

    def __init__(self, lm: NoiseLm, optim: OptimOptions, seed: int) -> None:
        super().__init__()
        self.lm, self.optim, self.seed = lm, optim, seed
        self.register_buffer("tokens", torch.zeros((), dtype=torch.long))

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and decay."""
        optimizer, scheduler = build_optimizer(self, self.optim)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_batch_start(self, batch: LmBatch, batch_idx: int) -> None:
        """Dropout becomes a function of (seed, step)."""
        torch.manual_seed(mixed_seed(self.seed, self.global_step, self.global_rank))

    def training_step(self, batch: LmBatch, batch_idx: int) -> Tensor:
        """Mean loss of the batch's targets, those of all processes; its mean over them is that."""
        total, count = nll_sum(self.lm, batch)
        loss = whole = total / max(1, count)
        if self.trainer.world_size > 1:
            sums: Any = torch.stack((total.detach().double(), total.new_tensor(count).double()))
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
            count = int(sums[1])
            # Gradients are averaged over processes, whatever their numbers of targets.
            loss = total * self.trainer.world_size / max(1, count)
            whole = sums[0] / max(1, count)
        if not torch.isfinite(whole):
            raise TrainingFailed(
                f"The noise model's loss is {whole.item()} at step {self.global_step}. Tuning has "
                "stopped; the last good checkpoint is kept.\n"
                "  to do: lower noise.tune.lr, or tune in full precision "
                "(trainer.precision=32-true)."
            )
        self.tokens += count
        scheduler: Any = self.lr_schedulers()
        values = {"noise/loss": whole.detach().float(), "optim/lr": scheduler.get_last_lr()[0]}
        self.log_dict(values, batch_size=len(batch.input_ids_BT))
        return loss


class _TuningSteps(torch.utils.data.Dataset[LmBatch]):
    """Whole batches by their places, for the rows of a batch share one padding."""

    def __init__(self, batches: LmBatches) -> None:
        self.batches = batches

    def __getitem__(self, places: Sequence[Place]) -> LmBatch:
        rows = [place[0] for place in places]
        return self.batches.build(rows, places[0][1])


class TuningData(pl.LightningDataModule):
    """Batches by step, from where the tuning stands.

    Args:
        batches: builds them.
        order: of the texts.
        total_steps: of the whole tuning.
    """

    def __init__(self, batches: LmBatches, order: TrainOrder, total_steps: int) -> None:
        super().__init__()
        self.batches, self.order, self.total_steps = batches, order, total_steps

    def train_dataloader(self) -> DataLoader[LmBatch]:
        """Steps from the next to the last; this process's share of each."""
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if self.order.size < world:
            raise InputError(
                f"noise.tune.batch_size={self.order.size} does not go round {world} processes.",
                "a text for each process at least",
                f"Set noise.tune.batch_size={world}, or start fewer processes.",
            )
        steps = StepBatches(self.order, self.trainer.global_step, self.total_steps, rank, world)
        # batch_size=None: the sampler's items are whole batches, and nothing is collated.
        return DataLoader(_TuningSteps(self.batches), sampler=steps, batch_size=None)


def tune(
    noise_lm: NoiseLm,
    train: Sequence[Encoded],
    held_out: Sequence[Encoded],
    mode: Mode,
    options: Mapping[str, Any],
    folder: Path,
    seed: int,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    trainer: Mapping[str, Any] | None = None,
    team: Team = ALONE,
) -> TuningResult:
    """Tune a noise model in place and measure its perplexity.

    Args:
        noise_lm: the untuned noise model.
        train: encoded training texts.
        held_out: encoded texts to measure on; may be empty.
        mode: what is given and what is written.
        options: `noise.tune`: lr, batch_size, epochs, max_steps, warmup_fraction, prefix_length,
            target_length.
        folder: where the checkpoint to go on from is kept.
        seed: of masks, order and dropout.
        callbacks: of the trainer, a progress bar say.
        loggers: of the trainer.
        trainer: of the `trainer` group accelerator, precision and, for a team, devices, num_nodes
            and strategy; the CPU or one GPU in full precision when None.
        team: the processes that tune together; all of them call this.

    Raises:
        InputError: for options that cannot be.
        Interrupted: on Ctrl-C; the same call goes on.
        TrainingFailed: on a non-finite loss.
    """
    start = time.perf_counter()
    _check(options)
    lengths = Lengths(int(options["prefix_length"]), int(options["target_length"]))
    batches = LmBatches(noise_lm, train, mode, lengths, seed)
    order = TrainOrder(tuple(batches.lengths()), int(options["batch_size"]), seed)
    steps = count_steps(order.steps_per_epoch, None, options["epochs"])
    if options["max_steps"] is not None:
        steps = min(steps, int(options["max_steps"]))
    module = NoiseTuning(noise_lm, _optim(options, steps), seed)
    folder.mkdir(parents=True, exist_ok=True)
    noise_lm.train()  # Lightning would keep the evaluation mode that models are loaded in
    fit = _trainer(steps, folder, callbacks, loggers, dict(trainer or {}))
    data = TuningData(batches, order, steps)
    fit.fit(module, datamodule=data, ckpt_path=find_checkpoint(folder).path, weights_only=True)
    # Lightning brings the weights back to the CPU; measure where they were trained.
    noise_lm.to(fit.strategy.root_device).eval()
    found = perplexity(noise_lm, held_out, mode, lengths, seed, team)
    noise_lm.cpu()
    return TuningResult(
        found.value,
        found.low,
        found.high,
        found.unknown_share,
        int(module.tokens),
        time.perf_counter() - start,
        steps,
    )


def _check(options: Mapping[str, Any]) -> None:
    for name in ("lr", "batch_size", "epochs"):
        if not isinstance(options[name], int | float) or not options[name] > 0:
            raise InputError(
                f"noise.tune.{name} is {options[name]!r}.",
                "a number above 0",
                f"Leave out noise.tune.{name}=..., or set it above 0.",
            )
    if options["max_steps"] is not None and int(options["max_steps"]) < 1:
        raise InputError(
            f"noise.tune.max_steps is {options['max_steps']}.",
            "a whole number from 1, or null",
            "Set noise.tune.max_steps=null.",
        )


def _optim(options: Mapping[str, Any], steps: int) -> OptimOptions:
    return OptimOptions(
        lr=float(options["lr"]),
        total_steps=steps,
        warmup_steps=round(float(options["warmup_fraction"]) * steps),
        weight_decay=float(options["weight_decay"]),
    )


def _trainer(
    steps: int,
    folder: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    config: dict[str, Any],
) -> pl.Trainer:
    # Lightning suggests worker processes for every loader; batches here cost little beside a step.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # It is: batches are a function of the step.
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    return bare_trainer(
        {"precision": "32-true", **ONE, **config},
        max_steps=steps,
        gradient_clip_val=1.0,
        log_every_n_steps=max(1, min(10, steps)),
        logger=list(loggers) or False,
        callbacks=[KeepLast(folder, max(50, steps // 20), share=WRITING), *callbacks],
        default_root_dir=folder,
        enable_progress_bar=any(isinstance(c, StepBar) for c in callbacks),
    )
