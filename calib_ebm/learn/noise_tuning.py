"""Tuning the noise model: the loss on what it shall write, masks drawn anew every epoch.  METHOD 2.

Everything random is a function of (seed, step) or of (seed, epoch, text): the batch of a step, its
masks, its dropout. So tuning that was interrupted goes on, and ends with the very weights it would
have had.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from calib_ebm.errors import InputError, TrainingFailed
from calib_ebm.learn.callbacks import KeepLast, StepBar
from calib_ebm.learn.checkpoints import find_checkpoint
from calib_ebm.learn.joint import mixed_seed
from calib_ebm.learn.optimisation import OptimOptions, build_optimizer, count_steps
from calib_ebm.noise.fill import fill_batch
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import MEASURING, TUNING, stream
from calib_ebm.noise.modes import Lengths, Lesson, MlmFill, Mode, fit_text
from calib_ebm.noise.padding import length_batches, pad_right
from calib_ebm.noise.tuned import TuningResult
from calib_ebm.shapes import Encoded
from calib_ebm.tokens.order import Place, StepBatches, TrainOrder

EVAL_BATCH = 16
"""Texts measured at once: the logits of GPT-2 at 128 targets of a text take 25 MB."""


class LmBatch(NamedTuple):
    """What the noise model reads, and which of its symbols it is asked for.

    `target_BT` holds at each place the symbol to be predicted there, or `IGNORED`.
    """

    input_ids_BT: Tensor
    target_BT: Tensor
    mask_BT: Tensor | None
    """1 for symbols, 0 for padding; None where causal attention makes it needless."""
    types_BT: Tensor | None
    wanted: int
    """Targets, those left out because the noise model does not know them included."""


IGNORED = -100


class LmBatches:
    """Builds batches in the way of a mode.

    Args:
        lm: the noise model: its vocabulary and, for a masked LM, its frame.
        texts: encoded texts.
        mode: what is given and what is written.
        lengths: of prefix and target.
        seed: of the masks.
    """

    def __init__(
        self, lm: NoiseLm, texts: Sequence[Encoded], mode: Mode, lengths: Lengths, seed: int
    ) -> None:
        self.lm, self.mode, self.seed = lm, mode, seed
        pairs = bool(texts) and texts[0].ids_b is not None
        budget = lengths.budget(pairs, mode)
        self.texts = [fit_text(lm.vocabulary.text(text), budget) for text in texts]

    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(text.ids_a) + len(text.ids_b or ()) for text in self.texts]

    def build(self, rows: Sequence[int], epoch: int, use: int = TUNING) -> LmBatch:
        """The batch of some texts with the masks of an epoch."""
        texts = [self.texts[row] for row in rows]
        rngs = [stream(self.seed, use, epoch, row) for row in rows]
        if isinstance(self.mode, MlmFill):
            slots = [self.mode.slots(text, rng) for text, rng in zip(texts, rngs, strict=True)]
            batch = fill_batch(self.lm, texts, slots)
            target_BT = batch.content_BT.masked_fill(~batch.slot_BT, IGNORED)
            types_BT = batch.types_BT
            return self._known(batch.input_ids_BT, target_BT, batch.mask_BT, types_BT)
        symbols = self.lm.vocabulary.symbols
        lessons = [
            self.mode.lesson(text, symbols, rng) for text, rng in zip(texts, rngs, strict=True)
        ]
        return self._write(lessons)

    def _write(self, lessons: Sequence[Lesson]) -> LmBatch:
        """Prefix, START and target in a row; each symbol is predicted at the place before it."""
        symbols = self.lm.vocabulary.symbols
        inputs, targets = [], []
        for prefix, target, asked in lessons:
            inputs.append([*prefix, symbols.start, *target[:-1]])
            wanted = [s if is_asked else IGNORED for s, is_asked in zip(target, asked, strict=True)]
            targets.append([IGNORED] * len(prefix) + wanted)
        return self._known(pad_right(inputs, symbols.pad), pad_right(targets, IGNORED), None, None)

    def _known(
        self,
        input_ids_BT: Tensor,
        target_BT: Tensor,
        mask_BT: Tensor | None,
        types_BT: Tensor | None,
    ) -> LmBatch:
        wanted = int((target_BT != IGNORED).sum())
        target_BT = target_BT.masked_fill(target_BT == self.lm.vocabulary.symbols.unknown, IGNORED)
        return LmBatch(input_ids_BT, target_BT, mask_BT, types_BT, wanted)


def nll_by_text(lm: NoiseLm, batch: LmBatch) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each text, summed over its targets, and their numbers; both (B,).

    Only the places that have a target reach the output layer, which is most of a small model's
    work.
    """
    asked_BT = batch.target_BT != IGNORED
    kwargs: dict[str, Any] = {}
    if batch.mask_BT is not None and batch.types_BT is not None:
        kwargs["attention_mask"] = batch.mask_BT
        if int(batch.types_BT.max()) > 0:
            kwargs["token_type_ids"] = batch.types_BT
    logits_NV = lm.target_logits(batch.input_ids_BT, asked_BT, **kwargs)
    nll_N = cross_entropy(logits_NV.float(), batch.target_BT[asked_BT], reduction="none")
    count_B = asked_BT.sum(dim=1)
    row_N = torch.arange(len(count_B), device=nll_N.device).repeat_interleave(count_B)
    return nll_N.new_zeros(len(count_B)).index_add(0, row_N, nll_N), count_B


def nll_sum(lm: NoiseLm, batch: LmBatch) -> tuple[Tensor, int]:
    """Negative log-likelihood summed over the targets of a batch, and their number."""
    nll_B, count_B = nll_by_text(lm, batch)
    return nll_B.sum(), int(count_B.sum())


class Perplexity(NamedTuple):
    """exp of the mean negative log-likelihood of a token, each token counted once."""

    value: float | None
    tokens: int
    unknown_share: float | None
    low: float | None = None
    """Ends of the 95% interval over texts."""
    high: float | None = None


def ratio_interval(total_N: Tensor, count_N: Tensor) -> tuple[float, float, float]:
    """Sum of totals by sum of counts, with a normal 95% interval over texts.

    A ratio of two sums: its error is that of the residuals total - ratio * count (Cochran, Sampling
    Techniques, section 6.3).

    >>> ratio_interval(torch.tensor([2.0, 4.0]), torch.tensor([1, 2]))
    (2.0, 2.0, 2.0)
    """
    total_N, count_N = total_N.double(), count_N.double()
    ratio = total_N.sum() / count_N.sum()
    size = len(total_N)
    residual = (total_N - ratio * count_N).square().sum().sqrt() / count_N.sum()
    error = 1.959964 * float(residual) * math.sqrt(size / max(1, size - 1))
    return float(ratio), float(ratio) - error, float(ratio) + error


@torch.inference_mode()
def perplexity(
    lm: NoiseLm, texts: Sequence[Encoded], mode: Mode, lengths: Lengths, seed: int
) -> Perplexity:
    """Token-weighted perplexity of texts under masks of their own, the same at each call.

    Averaging the means of batches or texts instead would weigh short texts too much.
    """
    batches = LmBatches(lm, texts, mode, lengths, seed)
    was_training = lm.training
    lm.eval()
    nll, counts, wanted = [torch.zeros(0)], [torch.zeros(0, dtype=torch.long)], 0
    for rows in length_batches(batches.lengths(), EVAL_BATCH):
        batch = _to(batches.build(rows, 0, MEASURING), lm.device)
        nll_B, count_B = nll_by_text(lm, batch)
        nll.append(nll_B.cpu())
        counts.append(count_B.cpu())
        wanted += batch.wanted
    lm.train(was_training)
    nll_N, count_N = torch.cat(nll), torch.cat(counts)
    tokens = int(count_N.sum())
    if not tokens:
        return Perplexity(None, 0, None)
    mean, low, high = ratio_interval(nll_N, count_N)
    return Perplexity(math.exp(mean), tokens, 1 - tokens / wanted, math.exp(low), math.exp(high))


def _to(batch: LmBatch, device: torch.device) -> LmBatch:
    moved: Any = [x.to(device) if isinstance(x, Tensor) else x for x in batch]
    return LmBatch(*moved)


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
        """Mean loss of the batch's targets."""
        total, count = nll_sum(self.lm, batch)
        loss = total / max(1, count)
        if not torch.isfinite(loss):
            raise TrainingFailed(
                f"The noise model's loss is {loss.item()} at step {self.global_step}. Tuning has "
                "stopped; the last good checkpoint is kept.\n"
                "  to do: lower noise.tune.lr, or tune in full precision "
                "(trainer.precision=32-true)."
            )
        self.tokens += count
        scheduler: Any = self.lr_schedulers()
        values = {"noise/loss": loss.detach(), "optim/lr": scheduler.get_last_lr()[0]}
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
        """Steps from the next to the last."""
        assert self.trainer is not None
        steps = StepBatches(self.order, self.trainer.global_step, self.total_steps)
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
        trainer: accelerator and precision; the CPU or one GPU in full precision when None.

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
    found = perplexity(noise_lm, held_out, mode, lengths, seed)
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
    return pl.Trainer(
        accelerator=config.get("accelerator", "auto"),
        precision=config.get("precision", "32-true"),
        # One process tunes, however many a launcher has started: the others wait for what it makes.
        devices=1,
        max_steps=steps,
        gradient_clip_val=1.0,
        log_every_n_steps=max(1, min(10, steps)),
        logger=list(loggers) or False,
        callbacks=[KeepLast(folder, max(50, steps // 20)), *callbacks],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, StepBar) for c in callbacks),
        use_distributed_sampler=False,
    )
