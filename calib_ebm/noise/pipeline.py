"""The noise stage: a tuned noise model and two banks, found where they are, else made.

    ensure_noise      all of it, for `train`
    ensure_noise_lm   the noise model, for `tune_noise`
    ensure_bank       one bank, for `draw_noise`

Each is stored under the digest of all that determines it. Tuning needs Lightning, which this room
does not know, so it is handed in as a function.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from calib_ebm.errors import InputError, Interrupted
from calib_ebm.noise.bank import (
    FORMAT,
    MANIFEST,
    NoiseBank,
    bank_folder,
    digest_of,
    write_bank,
    write_whole,
)
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.lm import NoiseLm, build_noise_lm, lm_source
from calib_ebm.noise.lock import only_one
from calib_ebm.noise.modes import Lengths, Mode, build_mode, check_texts
from calib_ebm.noise.order import check_per_text
from calib_ebm.noise.progress import drawing_progress
from calib_ebm.noise.sampler import Sampler
from calib_ebm.noise.vocabulary import ClassifierTokenizer
from calib_ebm.shapes import Encoded

Say = Callable[[str], None]


@dataclass(frozen=True)
class TuningResult:
    """What tuning came to.

    Attributes:
        perplexity: token-weighted, of held-out texts; None without any.
        unknown_share: share of held-out target tokens that the noise model does not know, left out
            above.
        tokens: target tokens trained on.
        seconds: of this part of the tuning (an interrupted one has several).
        steps: of the whole tuning.
    """

    perplexity: float | None
    unknown_share: float | None
    tokens: int
    seconds: float
    steps: int


class Tuner(Protocol):
    """Tunes a noise model in place, going on with what an earlier attempt left in `folder`."""

    def __call__(
        self,
        noise_lm: NoiseLm,
        train: Sequence[Encoded],
        held_out: Sequence[Encoded],
        mode: Mode,
        options: Mapping[str, Any],
        folder: Path,
        seed: int,
    ) -> TuningResult:
        """See `calib_ebm.learn.noise_tuning.tune`."""


@dataclass(frozen=True)
class NoiseTask:
    """What noise is made for.

    Args:
        name: of the task.
        digest: of its training data.
        classes: C.
        train: encoded training texts.
        held_out: encoded held-out texts; may be empty.
        tokenizer: the classifier's.
    """

    name: str
    digest: str
    classes: int
    train: Sequence[Encoded]
    held_out: Sequence[Encoded]
    tokenizer: ClassifierTokenizer

    @property
    def pairs(self) -> bool:
        """Whether its texts are pairs."""
        return self.train[0].ids_b is not None


@dataclass(frozen=True)
class TunedLm:
    """A tuned noise model where it lies.

    Attributes:
        digest: of all that determines it.
        manifest: what it was made with and what tuning came to.
        reused: whether it was already there.
    """

    lm: NoiseLm
    folder: Path
    digest: str
    manifest: dict[str, Any]
    seconds: float
    reused: bool


@dataclass(frozen=True)
class NoiseStage:
    """All that the noise stage made or found.

    Attributes:
        held_out_bank: None when there are no held-out texts.
        manifest: of the noise model and of the banks, for run.json.
        seconds: by part: `tune`, `draw`, `draw_held_out`.
        reused: by the same names.
    """

    train_bank: NoiseBank
    held_out_bank: NoiseBank | None
    lm_folder: Path
    perplexity: float | None
    manifest: dict[str, Any]
    seconds: dict[str, float]
    reused: dict[str, bool]


def texts_digest(texts: Sequence[Encoded]) -> str:
    """Digest of encoded texts with their labels, in order."""
    digest = hashlib.sha256()
    for text in texts:
        ids_b = [-1] if text.ids_b is None else text.ids_b
        row = [text.label, len(text.ids_a), *text.ids_a, len(ids_b), *ids_b]
        digest.update(np.asarray(row, dtype=np.int64).tobytes())
    return digest.hexdigest()


def lengths_of(config: Mapping[str, Any]) -> Lengths:
    """How much the noise model reads and writes."""
    tune = config["tune"]
    return Lengths(int(tune["prefix_length"]), int(tune["target_length"]))


def rows_needed(config: Mapping[str, Any], places: int, total: int) -> int:
    """Samples that training needs from the bank.

    Args:
        config: the `noise` group: K, and the bank's size or the number of epochs it shall last.
        places: texts of one epoch, or of all steps if they are fewer.
        total: texts of all steps.
    """
    if config["bank_size"] is not None:
        return int(config["bank_size"])
    epochs = min(int(config["bank_epochs"]), -(-total // places))
    return check_per_text(config["per_text"]) * places * max(1, epochs)


# ------------------------------------------------------------------------------------ noise model


def ensure_noise_lm(
    config: Mapping[str, Any],
    task: NoiseTask,
    cache_dir: Path,
    seed: int,
    tune: Tuner,
    say: Say = lambda line: None,
) -> TunedLm:
    """The tuned noise model of a task: found, or tuned now.

    Of several processes that ask for the same one, the first makes it and the others wait.

    Args:
        config: the `noise` group.
        task: what it is made for.
        cache_dir: where noise models and banks are kept.
        seed: of new weights, masks, order and dropout.
        tune: the tuner, see `calib_ebm.learn.noise_tuning.tune`.
        say: takes lines for the person.

    Raises:
        InputError: for settings that cannot be, or a noise model that cannot be had.
        Interrupted: on Ctrl-C while tuning; the same call goes on.
    """
    start = time.perf_counter()
    mode = build_mode(config)
    check_texts(mode, task.pairs, task.name)
    plan = _lm_plan(config, task, mode, seed)
    digest = digest_of(plan)
    folder = cache_dir / "noise_lm" / digest[:32]
    reused = True
    with only_one(folder, say):
        if not folder.exists():
            reused = False
            _tune_into(folder, plan, config, task, mode, seed, tune)
    manifest = _lm_manifest(folder, plan)
    lm = NoiseLm.load(folder, task.tokenizer)
    return TunedLm(lm, folder, digest, manifest, time.perf_counter() - start, reused)


def _lm_plan(config: Mapping[str, Any], task: NoiseTask, mode: Mode, seed: int) -> dict[str, Any]:
    source = lm_source(str(config["lm"]))
    return {
        "format": FORMAT,
        "task": task.digest,
        "texts": texts_digest(task.train),
        "held_out": texts_digest(task.held_out),
        "classes": task.classes,
        "tokenizer": task.tokenizer.digest,
        "lm": source,
        "small": dict(config["small"]) if source == {"name": "small"} else None,
        "mode": mode.to_plain(),
        "tune": dict(config["tune"]),
        "seed": seed,
    }


def _tune_into(
    folder: Path,
    plan: Mapping[str, Any],
    config: Mapping[str, Any],
    task: NoiseTask,
    mode: Mode,
    seed: int,
    tune: Tuner,
) -> None:
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    length = lengths_of(config).total
    lm = build_noise_lm(
        config,
        task.train,
        task.tokenizer,
        task.classes,
        masked=mode.fills_in,
        length=length,
        seed=seed,
    )
    result = tune(lm, task.train, task.held_out, mode, config["tune"], part / "tuning", seed)
    made = part / "made"
    made.mkdir(exist_ok=True)
    lm.save(made)
    manifest: dict[str, Any] = {
        "plan": plan,
        "task": task.name,
        "token_path": lm.vocabulary.token_path,
    }
    manifest |= {"vocabulary": lm.vocabulary.size, **vars(result)}
    write_whole(made / MANIFEST, json.dumps(manifest, indent=2).encode())
    made.rename(folder)
    _remove(part)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _remove(path)
        else:
            path.unlink()
    folder.rmdir()


def _lm_manifest(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        assert manifest["plan"] == json.loads(json.dumps(plan))
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise InputError(
            f"The noise model in {folder} is damaged: its {MANIFEST} is missing or broken.",
            "a folder as noise tuning writes it",
            "Remove the folder; the same command tunes the noise model again.",
        ) from error
    return manifest


# ----------------------------------------------------------------------------------------- banks


def make_sampler(
    config: Mapping[str, Any], task: NoiseTask, lm: NoiseLm, texts: Sequence[Encoded], seed: int
) -> Sampler:
    """The sampler of a task: draws noise around `texts`, and gives exact log-probabilities."""
    sampling = Sampling(int(config["top_k"]), float(config["temperature"]))
    return Sampler(
        lm, build_mode(config), sampling, texts, task.tokenizer, lengths_of(config), seed
    )


def ensure_bank(
    config: Mapping[str, Any],
    task: NoiseTask,
    tuned: TunedLm,
    cache_dir: Path,
    seed: int,
    count: int,
    *,
    held_out: bool = False,
    device: str = "auto",
    say: Say = lambda line: None,
) -> tuple[NoiseBank, bool]:
    """A bank of `count` noise texts: found, or drawn now.

    Args:
        config: the `noise` group.
        task: what it is made for.
        tuned: the noise model.
        cache_dir: where noise models and banks are kept.
        seed: of the masks and draws.
        count: samples.
        held_out: draw around held-out texts instead of training texts.
        device: where to draw: `cpu`, `cuda` ..., or `auto`.
        say: takes lines for the person.

    Returns:
        the bank, and whether it was already there.

    Raises:
        InputError: when the disk is full or the bank there is damaged.
        Interrupted: on Ctrl-C; the same call goes on with the shards that are missing.
    """
    texts = task.held_out if held_out else task.train
    split = "held-out" if held_out else "train"
    if count < 1 or not texts:
        raise InputError(
            f"A noise bank of {count} samples around {len(texts)} {split} texts cannot be drawn.",
            "at least one sample and one text",
            "Set noise.bank_size=null (as many as training needs).",
        )
    plan = _bank_plan(config, task, tuned, texts, split, seed, count)
    folder = bank_folder(cache_dir, plan)
    reused = True
    with only_one(folder, say):
        if not folder.exists():
            reused = False
            sampler = make_sampler(config, task, tuned.lm.to(_device(device)), texts, seed)
            facts = _bank_facts(config, task, tuned)
            size = int(config["draw_batch_size"])
            try:
                with drawing_progress(f"drawing {split} noise", count, say) as advance:
                    write_bank(folder, plan, count, lambda n: sampler.draw(n, size, advance), facts)
            except KeyboardInterrupt as stop:
                raise Interrupted(
                    f"Stopped while drawing {split} noise; finished shards are kept."
                ) from stop
    expect = {"task": task.digest, "tokenizer": task.tokenizer.digest}
    return NoiseBank.open(folder, expect), reused


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _bank_plan(
    config: Mapping[str, Any],
    task: NoiseTask,
    tuned: TunedLm,
    texts: Sequence[Encoded],
    split: str,
    seed: int,
    count: int,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "task": task.digest,
        "tokenizer": task.tokenizer.digest,
        "noise_lm": tuned.digest,
        "split": split,
        "texts": texts_digest(texts),
        "mode": build_mode(config).to_plain(),
        "top_k": int(config["top_k"]),
        "temperature": float(config["temperature"]),
        "seed": seed,
        "count": count,
    }


def _bank_facts(config: Mapping[str, Any], task: NoiseTask, tuned: TunedLm) -> dict[str, Any]:
    mode = build_mode(config).to_plain()
    return {
        "task_name": task.name,
        "lm": str(config["lm"]),
        "mode": mode["name"],
        "mask_rate": mode.get("mask_rate"),
        "token_path": tuned.lm.vocabulary.token_path,
        "perplexity": tuned.manifest["perplexity"],
    }


def ensure_noise(
    config: Mapping[str, Any],
    task: NoiseTask,
    cache_dir: Path,
    seed: int,
    *,
    train_rows: int,
    held_out_rows: int,
    tune: Tuner,
    device: str = "auto",
    say: Say = lambda line: None,
) -> NoiseStage:
    """The noise model and both banks: around training texts to train on, held-out ones to measure.

    Args:
        config: the `noise` group.
        task: what noise is made for.
        cache_dir: where noise models and banks are kept.
        seed: of everything drawn.
        train_rows: samples that training needs, see `rows_needed`.
        held_out_rows: samples to measure on; 0, or no held-out texts, draws none.
        tune: the tuner, see `calib_ebm.learn.noise_tuning.tune`.
        device: where to draw: `cpu`, `cuda` ..., or `auto`.
        say: takes lines for the person.

    Raises:
        InputError: for settings that cannot be.
        Interrupted: on Ctrl-C while tuning; the same call goes on.
    """
    check_per_text(config["per_text"])
    tuned = ensure_noise_lm(config, task, cache_dir, seed, tune, say)
    seconds, reused = {"tune": tuned.seconds}, {"tune": tuned.reused}
    banks: dict[str, NoiseBank | None] = {"draw": None, "draw_held_out": None}
    rows = {"draw": train_rows, "draw_held_out": held_out_rows if task.held_out else 0}
    for part, count in rows.items():
        if part == "draw_held_out" and not count:
            continue
        start = time.perf_counter()
        banks[part], reused[part] = ensure_bank(
            config,
            task,
            tuned,
            cache_dir,
            seed,
            count,
            held_out=part == "draw_held_out",
            device=device,
            say=say,
        )
        seconds[part] = time.perf_counter() - start
    train_bank, held_out_bank = banks["draw"], banks["draw_held_out"]
    assert train_bank is not None
    manifest = {
        "noise_lm": {"digest": tuned.digest, **tuned.manifest},
        "bank": train_bank.manifest,
        "held_out_bank": None if held_out_bank is None else held_out_bank.manifest,
    }
    return NoiseStage(
        train_bank,
        held_out_bank,
        tuned.folder,
        tuned.manifest["perplexity"],
        manifest,
        seconds,
        reused,
    )
