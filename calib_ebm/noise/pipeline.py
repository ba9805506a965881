"""The noise stage: a tuned noise model and banks of noise, found where they are, else made.

    ensure_noise_lm   the noise model, for `tune_noise`
    ensure_bank       one bank, for `draw_noise`: around training texts, or around held-out ones

Each is stored under the digest of all that determines it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from calib_ebm.errors import InputError, Interrupted
from calib_ebm.noise.bank import (
    FORMAT,
    NoiseBank,
    bank_folder,
    write_bank,
)
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.modes import build_mode
from calib_ebm.noise.order import check_per_text
from calib_ebm.noise.progress import drawing_progress
from calib_ebm.noise.sampler import Sampler
from calib_ebm.noise.tuned import (
    NoiseTask,
    Say,
    TunedLm,
    Tuner,
    TuningResult,
    ensure_noise_lm,
    lengths_of,
    sampling_of,
    texts_digest,
)
from calib_ebm.shapes import Encoded

__all__ = [
    "NoiseTask",
    "TunedLm",
    "Tuner",
    "TuningResult",
    "ensure_bank",
    "ensure_noise_lm",
    "held_out_seed",
    "make_sampler",
    "rows_needed",
    "texts_digest",
]


def held_out_seed(seed: int) -> int:
    """The seed of held-out noise.

    With the seed of the training noise, noise without a prefix would be the very texts trained on.
    """
    return seed + 1_000_000_007


def rows_needed(config: Mapping[str, Any], places: int, total: int) -> int:
    """Samples that training needs from the bank.

    Args:
        config: the `noise` group: K, and the bank's size or the number of epochs it shall last.
        places: texts with noise in one epoch, or in all steps if they are fewer.
        total: texts with noise in all steps.

    Raises:
        InputError: when K or the number of epochs is below 1.
    """
    if config["bank_size"] is not None:
        return int(config["bank_size"])
    if not int(config["bank_epochs"]) >= 1:
        raise InputError(
            f"noise.bank_epochs is {config['bank_epochs']}.",
            "a whole number from 1",
            "Set noise.bank_epochs=4.",
        )
    epochs = min(int(config["bank_epochs"]), -(-total // places))
    return check_per_text(config["per_text"]) * places * epochs


def make_sampler(
    config: Mapping[str, Any], task: NoiseTask, lm: NoiseLm, texts: Sequence[Encoded], seed: int
) -> Sampler:
    """The sampler of a task: draws noise around `texts`, and gives exact log-probabilities."""
    mode, sampling = build_mode(config), sampling_of(config)
    return Sampler(lm, mode, sampling, texts, task.tokenizer, lengths_of(config), seed)


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
    reused = folder.exists()
    if not reused:
        sampler = make_sampler(config, task, tuned.lm.to(_device(device)), texts, seed)
        facts = _bank_facts(config, task, tuned)
        size = int(config["draw_batch_size"])
        try:
            with drawing_progress(f"drawing {split} noise", count, say) as advance:
                write_bank(
                    folder, plan, count, lambda n: sampler.draw(n, size, advance), facts, say
                )
        except KeyboardInterrupt as stop:
            raise Interrupted(
                f"Stopped while drawing {split} noise; finished shards are kept."
            ) from stop
        finally:
            tuned.lm.cpu()  # the device is needed for training now
    # The whole plan, as JSON keeps it: a bank that was moved into this place is not taken for it.
    return NoiseBank.open(folder, json.loads(json.dumps(plan))), reused


def _device(name: str) -> torch.device:
    if name == "auto" and torch.cuda.is_available():
        # Each process that a launcher starts on a machine draws on a GPU of its own.
        rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu" if name == "auto" else name)


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
