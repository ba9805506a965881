"""The datamodule of joint training: encoded texts, noise from the bank, batches by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from calib_ebm.errors import InputError
from calib_ebm.learn.sharding import Sharded
from calib_ebm.shapes import Encoded, JointBatch
from calib_ebm.tokens.collate import joint_batch
from calib_ebm.tokens.order import OnceBatches, Place, StepBatches, TrainOrder
from calib_ebm.tokens.tokenizer import TextTokenizer

NoiseFor = Callable[[Place], Sequence[Encoded]]
"""The K noise texts of a text at a place of the training, or none."""


class _Texts(Dataset[tuple[int, Encoded]]):
    """Rows of a split by number."""

    def __init__(self, texts: Sequence[Encoded]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> tuple[int, Encoded]:
        return row, self.texts[row]


class _PlacedTexts(Dataset[tuple[int, Encoded, Sequence[Encoded]]]):
    """Training texts by place, each with its noise."""

    def __init__(self, texts: Sequence[Encoded], noise_for: NoiseFor | None) -> None:
        self.texts = texts
        self.noise_for = noise_for

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, place: Place) -> tuple[int, Encoded, Sequence[Encoded]]:
        row = place[0]
        return row, self.texts[row], self.noise_for(place) if self.noise_for is not None else ()


def _collate_placed(
    tokenizer: TextTokenizer, items: list[tuple[int, Encoded, Sequence[Encoded]]]
) -> JointBatch:
    rows, texts, noise = zip(*items, strict=True)
    return joint_batch(tokenizer, texts, rows, [of_one for of_one in noise if of_one])


def _collate_once(tokenizer: TextTokenizer, items: list[tuple[int, Encoded]]) -> JointBatch:
    rows, texts = zip(*items, strict=True)
    return joint_batch(tokenizer, texts, rows)


def evaluation_loader(
    tokenizer: TextTokenizer,
    texts: Sequence[Encoded],
    batch_size: int,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[JointBatch]:
    """Every text once over all ranks; Lightning's own sampler would repeat some of them."""
    lengths = [len(t.ids_a) + len(t.ids_b or ()) for t in texts]
    return DataLoader(
        _Texts(texts),  # type: ignore[arg-type]  # collate turns items into JointBatch
        batch_sampler=OnceBatches(lengths, batch_size, rank, world),
        collate_fn=partial(_collate_once, tokenizer),
    )


class JointData(pl.LightningDataModule):
    """Training batches by step, and the fit half for the measurements while training.

    Args:
        tokenizer: builds and pads model input.
        train: encoded training texts.
        fit: encoded texts of the fit half.
        noise_for: gives the noise of a text at a place; None for plain fine-tuning.
        with_noise: S, texts of a batch with noise, over all ranks.
        order: which texts stand in which batch.
        eval_batch_size: texts of an evaluation batch on each rank.
        total_steps: steps of the whole training.
        workers: processes that prepare batches; 0 prepares them in the training process.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        train: Sequence[Encoded],
        fit: Sequence[Encoded],
        noise_for: NoiseFor | None,
        order: TrainOrder,
        *,
        eval_batch_size: int,
        total_steps: int,
        with_noise: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.with_noise = with_noise
        self.tokenizer, self.train, self.fit, self.noise_for = tokenizer, train, fit, noise_for
        self.eval_batch_size, self.total_steps, self.workers = eval_batch_size, total_steps, workers
        self.order = order

    def train_dataloader(self) -> DataLoader[JointBatch]:
        """Steps from where the run stands to its end; this rank's share of each."""
        assert self.trainer is not None
        world = self.trainer.world_size
        if self.order.size % world:
            raise InputError(
                f"A batch of {self.order.size} texts does not divide among {world} processes.",
                "a batch size that the number of processes divides",
                f"Set optim.batch_size={max(world, self.order.size // world * world)}.",
            )
        if self.with_noise % world:
            # Each rank's mean over its own noise would weigh in the mean over ranks as any other's.
            raise InputError(
                f"{self.with_noise} texts with noise in a batch of {self.order.size} do not divide "
                f"among {world} processes.",
                "a number that the number of processes divides",
                f"Set noise.share={-(-self.with_noise // world) * world / self.order.size:g}.",
            )
        batches = StepBatches(
            self.order, self.trainer.global_step, self.total_steps, self.trainer.global_rank, world
        )
        return DataLoader(
            _PlacedTexts(self.train, self.noise_for),  # type: ignore[arg-type]  # as above
            batch_sampler=batches,
            collate_fn=partial(_collate_placed, self.tokenizer),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[JointBatch]:
        """The fit half, each text once over all ranks."""
        assert self.trainer is not None
        world = self.trainer.world_size
        # Ranks that share their weights encode in step: as many batches on each.
        if isinstance(self.trainer.strategy, Sharded) and (
            len(self.fit) < world or self.eval_batch_size < 2
        ):
            raise InputError(
                f"The fit half has {len(self.fit)} texts and trainer.eval_batch_size is "
                f"{self.eval_batch_size}, for {world} processes that share their weights.",
                "a text for each process, and batches of 2 or more",
                "Set trainer.eval_batch_size=64, start fewer processes, or set trainer=ddp.",
            )
        return evaluation_loader(
            self.tokenizer,
            self.fit,
            self.eval_batch_size,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
