"""The joint training as a Lightning module: one encoder pass a step for data and noise."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from calib_ebm.calibration.metrics import metric_collection
from calib_ebm.energy.dropout import exchange_dropout
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import build_passes
from calib_ebm.energy.pooled import PooledHead
from calib_ebm.errors import Interrupted, TrainingFailed
from calib_ebm.learn.chunks import backward_of_noise, without_noise
from calib_ebm.learn.finite import LossWatch
from calib_ebm.learn.graphed import GraphedSteps, build_steps
from calib_ebm.learn.joint_scores import StepScores, data_tokens, score_joint
from calib_ebm.learn.language import LanguageTask
from calib_ebm.learn.optimisation import OptimOptions, build_optimizer, starting_weights
from calib_ebm.learn.recordable import Circumstances
from calib_ebm.learn.sharding import shard
from calib_ebm.learn.team import added_up
from calib_ebm.loss.joint import JointLoss, LossParts, with_terms
from calib_ebm.loss.nce import nce_accuracy
from calib_ebm.shapes import JointBatch, TokenBatch


def mixed_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one step of one rank: dropout follows from it, also in a resumed run."""
    return (seed * 1_000_003 + step * 7_919 + rank * 104_729 + 17) % (2**63)


class JointModule(pl.LightningModule):
    """Trains an `EnergyNetwork` with a `JointLoss`.

    Args:
        network: classifier and energy.
        loss: of the labels and the energy.
        optim: optimiser and schedule.
        classes: C.
        metrics: the task's own metrics, for the measurements while training.
        seed: of dropout.
        length_groups: groups by length, see `build_passes`.
        language: joint masked-LM learning, or None.
        noise_chunk: noise texts that are backpropagated together, see `chunks.py`; None: all at
            once, together with the data.
        one_pass: where texts cannot be packed, encode all in one pass and not in groups.
        graphs: record steps and replay them, see `graphed.py`: true, false, or "auto": where that
            can be.
    """

    def __init__(
        self,
        network: EnergyNetwork,
        loss: JointLoss,
        optim: OptimOptions,
        *,
        classes: int,
        metrics: tuple[str, ...],
        seed: int,
        length_groups: int = 1,
        language: LanguageTask | None = None,
        noise_chunk: int | None = None,
        one_pass: bool = False,
        graphs: bool | str = False,
    ) -> None:
        super().__init__()
        exchange_dropout(network)
        self.network = network
        self.loss = loss
        self.optim = optim
        self.seed = seed
        self.language = language
        self.noise_chunk = noise_chunk
        self.pooled = PooledHead(network.classifier) if loss.label.needs_head else None
        # Mixing looks back at the one pass in which all texts were; processes that share weights
        # must make as many passes each.
        self.passes = build_passes(network, length_groups, one=one_pass or self.pooled is not None)
        # Taken now: a checkpoint is loaded before the optimiser is made.
        self._towards = (
            starting_weights(network.encoder) if optim.decay_towards == "pretrained" else None
        )
        self.val_metrics = metric_collection(classes, metrics)
        self._is_sharded = False
        self.graphs = graphs
        self.steps: GraphedSteps | None = None
        self.complaints: list[str] = []
        self._is_replayed = False
        self.watch = LossWatch()

    def configure_model(self) -> None:
        """Cut the weights into shards, where the strategy has a mesh of processes for it."""
        if self._device_mesh is None or self._is_sharded:
            return
        self._is_sharded = True
        shard(self, self.network, self._device_mesh["data_parallel"])
        if self._towards is not None:
            # The parameters are others now.
            self._towards = starting_weights(self.network.encoder)

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and decay."""
        optimizer, scheduler = build_optimizer(self, self.optim, self._towards)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_batch_start(self, batch: JointBatch, batch_idx: int) -> None:
        """Dropout becomes a function of (seed, step, rank)."""
        if self.noise_chunk is not None and batch_idx % self.trainer.accumulate_grad_batches == 0:
            # Lightning would do it between `training_step` and its own backward.
            self.optimizers(use_pl_optimizer=False).zero_grad()  # type: ignore[union-attr]  # one
        self._reseed()

    def _reseed(self) -> None:
        torch.manual_seed(mixed_seed(self.seed, self.global_step, self.global_rank))

    def on_train_start(self) -> None:
        """Prepare for recording steps, where they can be and shall be."""
        self.steps = build_steps(
            self.graphs,
            self.passes,
            self.loss,
            self._reseed,
            Circumstances(
                self.device,
                str(self.trainer.precision),
                isinstance(self.trainer.strategy, SingleDeviceStrategy),
                self.trainer.accumulate_grad_batches,
                chunks=self.noise_chunk is not None,
                language=self.language is not None,
            ),
        )

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """Nothing where gradients are there now: of noise in chunks, or of a replayed step."""
        if self.noise_chunk is None and not self._is_replayed:
            optimizer.zero_grad()

    def training_step(self, batch: JointBatch, batch_idx: int) -> Tensor:
        """One joint step; returns the loss."""
        self.watch.check()
        scores, parts = self._replayed(batch) or self._computed(batch)
        self.watch.note(self.global_step, parts)
        if not self._checks_late():
            self.watch.check()
        if self._logs_each_step() or self._is_logged():
            self._log_step(scores, parts, batch.label_B)
        if self.loss.gate is not None and parts.nce is not None:
            # Last: all parts of a step, on whichever process, have had one weight.
            self.loss.gate.follow(added_up(parts.ce.detach().clone()) / self.trainer.world_size)
        return parts.total

    def _replayed(self, batch: JointBatch) -> tuple[StepScores, LossParts] | None:
        """By replaying what was recorded; None where it cannot be. Gradients are there then."""
        self._is_replayed = False
        if self.steps is None:
            return None
        try:
            done = self.steps(batch, self._progress())
        except (Interrupted, TrainingFailed):
            raise
        except RuntimeError as error:
            if self.graphs is True:
                raise
            self.steps = None
            why = (str(error).splitlines() or [type(error).__name__])[0]
            self.complaints.append(
                f"Steps are not replayed, which would be faster: {why} (trainer.graphs=false does "
                "not try.)"
            )
            self._reseed()
            return None
        if done is None:
            return None
        self._is_replayed = True
        scores, parts = done
        # What Lightning takes the gradients of has none but its own.
        return scores, parts._replace(total=parts.total.requires_grad_())

    def _computed(self, batch: JointBatch) -> tuple[StepScores, LossParts]:
        scores = self._scored(batch)
        parts = self.loss(
            scores.logits_BC,
            batch.label_B,
            scores.energy_data_B,
            scores.energy_noise_SK,
            progress=self._progress(),
            again=None if self.pooled is None else partial(self.pooled.again, len(batch.label_B)),
        )
        if self.language is not None:
            terms = self.language(self.passes, data_tokens(batch))
            parts = with_terms(parts, terms)
        return scores, parts

    def _progress(self) -> float:
        return self.global_step / self.optim.total_steps

    def _scored(self, batch: JointBatch) -> StepScores:
        """All texts; with chunks, the noise's gradients are there already."""
        if self.noise_chunk is None or batch.noise_label_SK is None:
            return score_joint(self.passes, batch)
        energy_noise_SK = backward_of_noise(
            self.passes,
            batch,
            self.loss,
            self.noise_chunk,
            progress=self._progress(),
            backward=self._backward_of_part,
        )
        return score_joint(self.passes, without_noise(batch))._replace(
            energy_noise_SK=energy_noise_SK
        )

    def _backward_of_part(self, part: Tensor) -> None:
        """As Lightning does with what `training_step` returns: averaged, scaled, in no autocast.

        DDP's hooks are not armed within `training_step`, so that nothing is exchanged here; what
        the last backward exchanges are the gradients of all parts.
        """
        with torch.autocast(self.device.type, enabled=False):
            self.trainer.strategy.backward(part / self.trainer.accumulate_grad_batches, None)

    def _checks_late(self) -> bool:
        """Whether to look at a loss is to wait for it. Of several processes all look at once."""
        return self.device.type != "cpu" and self.trainer.world_size == 1

    def _logs_each_step(self) -> bool:
        """For the bar. On a GPU, where a number takes kernels of its own, only what is written."""
        return self.device.type == "cpu"

    def _is_logged(self) -> bool:
        """Whether a logger will write what is logged in this step."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # its connector's
        return every > 0 and (self.global_step + 1) % every == 0

    def on_validation_start(self) -> None:
        """Nothing is measured of weights that a loss that is not finite has moved."""
        self.watch.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Nor written."""
        self.watch.check()

    def on_train_end(self) -> None:
        """Nor handed on."""
        self.watch.check()

    def _number(self, value: float) -> Tensor:
        """Where the others are: Lightning's own way would wait for the GPU."""
        return torch.full((), value, dtype=torch.float32, device=self.device)

    def _log_step(self, scores: StepScores, parts: LossParts, label_B: Tensor) -> None:
        rate = float(self.lr_schedulers().get_last_lr()[0])  # type: ignore[union-attr]  # one scheduler, one rate
        values = {
            # Lightning's count is one too high after a checkpoint written at a step's start.
            "step": self._number(self.global_step),
            "loss/total": parts.total.detach(),
            "loss/ce": parts.ce.detach(),
            "cls/acc": (scores.logits_BC.argmax(dim=-1) == label_B).float().mean(),
            "optim/lr": self._number(rate),
        }
        if parts.label is not parts.ce:
            values["loss/label"] = parts.label.detach()
        values |= {f"loss/{name}": value.detach() for name, value in parts.further.items()}
        if parts.nce is not None:
            assert scores.energy_data_B is not None
            assert scores.energy_noise_SK is not None
            data, noise = scores.energy_data_B.detach(), scores.energy_noise_SK.detach()
            values |= {
                "loss/nce": parts.nce.detach(),
                "energy/data": data.float().mean(),
                "energy/noise": noise.float().mean(),
                "energy/gap": noise.float().mean() - data.float().mean(),
                "nce/accuracy": nce_accuracy(data.float(), noise.float()),
            }
        self.log_dict(values, batch_size=len(label_B), sync_dist=self.trainer.world_size > 1)

    def validation_step(self, batch: JointBatch, batch_idx: int) -> None:
        """Accuracy and calibration on the fit half; nothing is selected by it."""
        scores = score_joint(self.passes, batch)
        self.val_metrics.update(scores.logits_BC.double().softmax(dim=-1), batch.label_B)

    def scored_logits(self, tokens: TokenBatch) -> Tensor:
        """Logits of B texts, (B, C), outside of a step: here the weights are whole, too."""
        logits_BC: Tensor = self.network(tokens).logits_BC
        return logits_BC

    def on_validation_epoch_end(self) -> None:
        """Log what was accumulated, over all ranks."""
        values = self.val_metrics.compute()
        self.val_metrics.reset()
        if not self.trainer.sanity_checking:
            named = {f"val/{name}": value for name, value in values.items()}
            self.log_dict(named | {"step": float(self.global_step - 1)})
