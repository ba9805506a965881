"""The tuned noise model of a task: found where it is already there, else tuned.

Tuning needs Lightning, which this room does not know, so it is handed in as a function.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calib_ebm.durable import sync_folder, write_whole
from calib_ebm.errors import InputError
from calib_ebm.lock import only_one
from calib_ebm.noise.bank import FORMAT, MANIFEST
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.lm import NoiseLm, build_noise_lm
from calib_ebm.noise.modes import Lengths, Mode, build_mode, check_texts
from calib_ebm.noise.seal import changed_file, digest_of, facts_within, is_unbroken, sealed
from calib_ebm.noise.source import lm_source
from calib_ebm.noise.vocabulary import ClassifierTokenizer
from calib_ebm.shapes import Encoded

Say = Callable[[str], None]


@dataclass(frozen=True)
class TuningResult:
    """What tuning came to.

    Attributes:
        perplexity: token-weighted, of held-out texts; None without any.
        perplexity_low: lower end of its 95% interval over texts.
        perplexity_high: upper end.
        unknown_share: share of held-out target tokens that the noise model does not know, left out
            above.
        tokens: target tokens trained on.
        seconds: of this part of the tuning (an interrupted one has several).
        steps: of the whole tuning.
    """

    perplexity: float | None
    perplexity_low: float | None
    perplexity_high: float | None
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


def sampling_of(config: Mapping[str, Any]) -> Sampling:
    """How tokens are drawn.

    Raises:
        InputError: for a top-k or temperature that leaves nothing to draw.
    """
    return Sampling(int(config["top_k"]), float(config["temperature"]))


def ensure_noise_lm(
    config: Mapping[str, Any],
    task: NoiseTask,
    cache_dir: Path,
    seed: int,
    tune: Tuner,
    say: Say = lambda line: None,
    *,
    first: bool = True,
    told: Callable[[bool], bool] = bool,
) -> TunedLm:
    """The tuned noise model of a task: found, or tuned now.

    Of several commands that ask for the same one, the first makes it and the others wait. The
    processes of one command tune together, and the first of them writes.

    Args:
        config: the `noise` group.
        task: what it is made for.
        cache_dir: where noise models and banks are kept.
        seed: of new weights, masks, order and dropout.
        tune: the tuner, see `calib_ebm.learn.noise_tuning.tune`.
        say: takes lines for the person.
        first: whether this process writes.
        told: what the first process gives it, in all of them; they wait for that.

    Raises:
        InputError: for settings that cannot be, or a noise model that cannot be had.
        Interrupted: on Ctrl-C while tuning; the same call goes on.
    """
    start = time.perf_counter()
    mode = build_mode(config)
    check_texts(mode, task.pairs, task.name)
    sampling_of(config)  # refuse before hours of tuning what drawing would refuse after them
    plan = _lm_plan(config, task, mode, seed)
    digest = digest_of(plan)
    folder = cache_dir / "noise_lm" / digest[:32]
    with only_one(folder, say) if first else nullcontext():
        reused = told(folder.exists())
        if not reused:
            lm, result = _tuned(folder, config, task, mode, seed, tune)
            if first:
                _publish(folder, plan, task, lm, result)
        if first and (part := _part(folder)).exists():
            _remove(part)  # by now or, after a kill in between, by the next call
        told(True)  # it is there now
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


def _tuned(
    folder: Path,
    config: Mapping[str, Any],
    task: NoiseTask,
    mode: Mode,
    seed: int,
    tune: Tuner,
) -> tuple[NoiseLm, TuningResult]:
    part = _part(folder)
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
    return lm, result


def _publish(
    folder: Path, plan: Mapping[str, Any], task: NoiseTask, lm: NoiseLm, result: TuningResult
) -> None:
    """Put the noise model in place whole."""
    made = _part(folder) / "made"
    made.mkdir(exist_ok=True)
    lm.save(made)
    manifest: dict[str, Any] = {
        "plan": plan,
        "task": task.name,
        "token_path": lm.vocabulary.token_path,
    }
    manifest |= {"vocabulary": lm.vocabulary.size, **vars(result), "files": facts_within(made)}
    write_whole(made / MANIFEST, json.dumps(sealed(manifest), indent=2).encode())
    made.rename(folder)
    sync_folder(folder.parent)


def _part(folder: Path) -> Path:
    """Where a noise model is while it is tuned, checkpoints beside it."""
    return folder.with_name(folder.name + ".part")


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
        assert is_unbroken(manifest)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise _damaged(folder, f"its {MANIFEST} is missing or broken") from error
    # None are listed by those of before there were such lists.
    if (changed := changed_file(folder, manifest.get("files", []))) is not None:
        raise _damaged(folder, f"{changed} is missing, cut short or changed")
    return manifest


def _damaged(folder: Path, why: str) -> InputError:
    return InputError(
        f"The noise model in {folder} is damaged: {why}.",
        "a folder as noise tuning writes it",
        "Remove the folder; the same command tunes the noise model again.",
    )
