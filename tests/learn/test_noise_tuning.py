"""Tuning of noise models, on models of a few thousand weights."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from calib_ebm.errors import InputError, Interrupted, TrainingFailed
from calib_ebm.learn.noise_batches import IGNORED, LmBatches
from calib_ebm.learn.noise_perplexity import nll_sum, perplexity, ratio_interval
from calib_ebm.learn.noise_tuning import tune
from calib_ebm.noise.lm import NoiseLm, SmallOptions, build_small
from calib_ebm.noise.modes import (
    Half,
    Labelled,
    Lengths,
    Masked,
    MlmFill,
    Mode,
    Unconditional,
)
from calib_ebm.shapes import Encoded

LENGTHS = Lengths(16, 16)
OPTIONS = {
    "lr": 3e-3,
    "batch_size": 4,
    "epochs": 3,
    "max_steps": None,
    "warmup_fraction": 0.1,
    "weight_decay": 0.01,
    "prefix_length": 16,
    "target_length": 16,
}
CPU = {"accelerator": "cpu"}
TOKENIZER: Any = SimpleNamespace(special_ids=frozenset({0}), hf=SimpleNamespace(unk_token_id=None))
ALL_MODES = [Masked(0.4), Unconditional(), Labelled(), MlmFill(0.4)]


def texts_of(size: int, pairs: bool = False, seed: int = 0, words: int = 6) -> list[Encoded]:
    rng = np.random.default_rng(seed)

    def half() -> list[int]:
        return rng.integers(1, 1 + words, rng.integers(2, 7)).tolist()

    return [Encoded(half(), half() if pairs else None, i % 2) for i in range(size)]


def lm_of(
    texts: Sequence[Encoded], masked: bool = False, dropout: float = 0.1, seed: int = 0
) -> NoiseLm:
    torch.manual_seed(seed)
    options = SmallOptions(layers=1, width=16, heads=2, dropout=dropout)
    return build_small(texts, TOKENIZER, 2, LENGTHS.total, options, masked=masked)


def weights(lm: NoiseLm) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in lm.parameters()])


def test_the_loss_is_of_the_target_alone_end_included() -> None:
    texts = texts_of(5)
    lm = lm_of(texts).eval()
    batch = LmBatches(lm, texts, Masked(0.4), LENGTHS, seed=0).build(range(5), epoch=0)
    s = lm.vocabulary.symbols
    ours, count = nll_sum(lm, batch)
    theirs, expected = 0.0, 0
    for text, row in zip(texts, batch.input_ids_BT.tolist(), strict=True):
        prefix = row[: row.index(s.start)]
        target = [*lm.vocabulary.to_lm(text.ids_a), s.end]
        read = torch.tensor([[*prefix, s.start, *target]])
        with torch.no_grad():
            log_probs = lm.model(input_ids=read).logits[0].log_softmax(dim=-1)
        for at, symbol in enumerate(target):
            theirs -= float(log_probs[len(prefix) + at, symbol])
        expected += len(target)
    assert count == expected == batch.wanted
    assert math.isclose(ours.item(), theirs, rel_tol=1e-5)


@pytest.mark.parametrize("mode", [*ALL_MODES, Half()], ids=str)
def test_the_targets_are_the_text(mode: Mode) -> None:
    texts = texts_of(6, pairs=mode.needs_pairs)
    lm = lm_of(texts, masked=mode.fills_in)
    batch = LmBatches(lm, texts, mode, LENGTHS, seed=0).build(range(6), epoch=0)
    for text, target in zip(texts, batch.target_BT.tolist(), strict=True):
        asked = [symbol for symbol in target if symbol != IGNORED]
        if mode.fills_in:
            content = set(lm.vocabulary.to_lm(text.ids_a))
            assert set(asked) <= content
        else:
            assert asked == mode.target(lm.vocabulary.text(text), lm.vocabulary.symbols)


def test_masks_are_drawn_anew_every_epoch_and_belong_to_the_text() -> None:
    texts = texts_of(30)
    batches = LmBatches(lm_of(texts), texts, Masked(0.4), LENGTHS, seed=0)

    def prefixes(rows: Sequence[int], epoch: int) -> list[list[int]]:
        batch = batches.build(rows, epoch)
        start = batches.lm.vocabulary.symbols.start
        return [row[: row.index(start)] for row in batch.input_ids_BT.tolist()]

    first = prefixes(range(30), 0)
    assert prefixes(range(30), 0) == first
    # In whichever batch a text stands, its mask of the epoch is the same.
    assert prefixes([7, 3], 0) == [first[7], first[3]]
    changed = [a != b for a, b in zip(first, prefixes(range(30), 1), strict=True)]
    assert sum(changed) > 15


def test_unknown_pieces_are_no_target_and_counted() -> None:
    train, held_out = texts_of(8, words=3), texts_of(40, words=6, seed=1)
    lm = lm_of(train)
    found = perplexity(lm, held_out, Unconditional(), LENGTHS, seed=0)
    known = set(lm.vocabulary.content_of)
    total = sum(len(text.ids_a) + 1 for text in held_out)
    unknown = sum(token not in known for text in held_out for token in text.ids_a)
    assert unknown > 0
    assert found.unknown_share == pytest.approx(unknown / total)
    assert found.tokens == total - unknown
    assert perplexity(lm, [], Unconditional(), LENGTHS, seed=0).value is None


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_perplexity_weighs_tokens_not_texts_nor_batches(mode: Mode) -> None:
    texts = texts_of(70)  # two batches of different length
    lm = lm_of(texts, masked=mode.fills_in).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(8)  # so that texts differ in their loss
    batches = LmBatches(lm, texts, mode, LENGTHS, seed=5)
    sums = []
    with torch.no_grad():
        for row in range(len(texts)):
            total, count = nll_sum(lm, batches.build([row], 0, use=1))
            sums.append((float(total), count))
    weighted = math.exp(sum(t for t, _ in sums) / sum(c for _, c in sums))
    found = perplexity(lm, texts, mode, LENGTHS, seed=5)
    assert found.value == pytest.approx(weighted, rel=1e-4)
    of_means = math.exp(np.mean([t / c for t, c in sums if c]))
    assert abs(of_means / weighted - 1) > 1e-3  # the control: the wrong average is another number


class StopAt(Callback):
    """Ctrl-C in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


def run(
    lm: NoiseLm,
    texts: list[Encoded],
    mode: Mode,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    seed: int = 3,
    **options: Any,
) -> Any:
    return tune(
        lm,
        texts,
        texts[:10],
        mode,
        OPTIONS | options,
        folder,
        seed,
        callbacks=callbacks,
        trainer=CPU,
    )


@pytest.mark.parametrize("mode", [Masked(0.4), MlmFill(0.4)], ids=str)
def test_interrupted_and_resumed_is_uninterrupted_by_value(tmp_path: Path, mode: Mode) -> None:
    texts = texts_of(18)
    undisturbed = lm_of(texts, masked=mode.fills_in)
    result = run(undisturbed, texts, mode, tmp_path / "a")
    assert result.steps == 12

    stopped = lm_of(texts, masked=mode.fills_in)
    # In the middle of the second epoch, and once more in the third.
    for step in (5, 9):
        with pytest.raises(Interrupted):
            run(stopped, texts, mode, tmp_path / "b", [StopAt(step)])
    resumed = lm_of(texts, masked=mode.fills_in, seed=99)  # its weights come from the checkpoint
    again = run(resumed, texts, mode, tmp_path / "b")
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert again.perplexity == result.perplexity
    assert again.tokens == result.tokens
    # The control: another seed, or no resuming, gives other weights.
    other = lm_of(texts, masked=mode.fills_in)
    run(other, texts, mode, tmp_path / "c", seed=4)
    assert not torch.equal(weights(other), weights(undisturbed))


def test_every_epoch_of_the_tuning_has_masks_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = texts_of(8)
    seen: dict[int, list[int]] = {}
    build = LmBatches.build

    def spy(self: LmBatches, rows: Sequence[int], epoch: int, *use: int) -> Any:
        if not use:
            seen.setdefault(epoch, []).extend(rows)
        return build(self, rows, epoch, *use)

    monkeypatch.setattr(LmBatches, "build", spy)
    run(lm_of(texts), texts, Masked(0.4), tmp_path)
    assert {epoch: sorted(rows) for epoch, rows in seen.items()} == {
        epoch: list(range(8)) for epoch in range(3)
    }


def test_tuning_runs_alone_under_a_launcher_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "0",
        "ROLE_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "x",
    }
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    texts = texts_of(8)
    launched_lm, lm = lm_of(texts), lm_of(texts)
    assert run(launched_lm, texts, Masked(0.4), tmp_path / "a").steps == 6
    assert {name: os.environ.get(name) for name in launched} == launched
    for name in launched:
        monkeypatch.delenv(name)
    run(lm, texts, Masked(0.4), tmp_path / "b")
    assert torch.equal(weights(launched_lm), weights(lm))


def test_dropout_is_on_while_tuning(tmp_path: Path) -> None:
    texts = texts_of(12)
    with_dropout, without = lm_of(texts).eval(), lm_of(texts, dropout=0.0).eval()
    for name, lm in (("a", with_dropout), ("b", without)):
        run(lm, texts, Unconditional(), tmp_path / name, max_steps=2)
        assert not lm.training
    assert not torch.equal(weights(with_dropout), weights(without))


def test_a_noise_model_learns_the_texts(tmp_path: Path) -> None:
    # Texts are 1 2 3 or 1 2 4, equally often: log 2 nats in a text of 4 symbols with its end.
    texts = [Encoded([1, 2, 3 + i % 2], None, 0) for i in range(40)]
    lm = lm_of(texts, dropout=0.0)
    before = perplexity(lm, texts, Unconditional(), LENGTHS, seed=0).value
    result = tune(
        lm,
        texts,
        texts,
        Unconditional(),
        OPTIONS | {"epochs": 20, "lr": 1e-2},
        tmp_path,
        0,
        trainer=CPU,
    )
    entropy_rate = math.log(2) / 4
    assert before is not None
    assert before > 5
    assert result.perplexity == pytest.approx(math.exp(entropy_rate), rel=0.03)


def test_labels_are_learned_where_they_are_written(tmp_path: Path) -> None:
    texts = [Encoded([1 + i % 2], None, i % 2) for i in range(40)]
    lm = lm_of(texts, dropout=0.0)
    options = OPTIONS | {"epochs": 20, "lr": 1e-2}
    result = tune(lm, texts, texts, Labelled(), options, tmp_path, 0, trainer=CPU)
    # A fair coin for the label; the token and the end follow from it: 3 symbols.
    assert result.perplexity == pytest.approx(2 ** (1 / 3), rel=0.03)


def test_steps_are_the_smaller_of_both_counts(tmp_path: Path) -> None:
    texts = texts_of(16)
    assert run(lm_of(texts), texts, Unconditional(), tmp_path / "a", max_steps=2).steps == 2
    assert run(lm_of(texts), texts, Unconditional(), tmp_path / "b", max_steps=999).steps == 12


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path: Path) -> None:
    texts = texts_of(16)
    lm = lm_of(texts)
    with torch.no_grad():
        lm.model.transformer.wte.weight[0] = math.inf
    with pytest.raises(TrainingFailed, match="at step 0"):
        run(lm, texts, Unconditional(), tmp_path)


@pytest.mark.parametrize(
    "bad", [{"lr": 0}, {"batch_size": 0}, {"epochs": -1}, {"max_steps": 0}], ids=str
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    texts = texts_of(8)
    with pytest.raises(InputError, match=f"noise.tune.{next(iter(bad))}"):
        run(lm_of(texts), texts, Unconditional(), tmp_path, **bad)


def test_the_checkpoint_holds_plain_values_and_tensors(tmp_path: Path) -> None:
    texts = texts_of(16)
    with pytest.raises(Interrupted):
        run(lm_of(texts), texts, Unconditional(), tmp_path, [StopAt(3)])
    checkpoints = list(tmp_path.rglob("*.ckpt"))
    assert len(checkpoints) == 1
    state = torch.load(checkpoints[0], map_location="cpu", weights_only=True)
    assert state["global_step"] == 4


def test_ratio_interval_covers_the_ratio() -> None:
    # True ratio 2: total = 2 * count + noise; 95 of 100 intervals hold it, give or take.
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        count = torch.randint(1, 20, (80,), generator=generator)
        total = 2.0 * count + torch.randn(80, generator=generator) * count.sqrt()
        value, low, high = ratio_interval(total, count)
        assert low < value < high
        hits += low <= 2.0 <= high
    assert 180 <= hits <= 198


def test_ratio_interval_weighs_tokens_and_not_texts() -> None:
    value, _, _ = ratio_interval(torch.tensor([1.0, 90.0]), torch.tensor([1, 9]))
    assert value == pytest.approx(91 / 10)  # and not (1 + 10) / 2
