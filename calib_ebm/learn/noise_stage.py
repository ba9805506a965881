"""The noise stage of a run: a tuned noise model, noise to train on, noise to measure on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from calib_ebm.learn.checkpoints import find_checkpoint
from calib_ebm.learn.fit import progress
from calib_ebm.learn.meeting import team_of
from calib_ebm.learn.noise_tuning import tune
from calib_ebm.learn.prepare import Material, Plan, load_material, plan_training
from calib_ebm.learn.quiet import quieten
from calib_ebm.learn.record import RunRecorder, say_and_record
from calib_ebm.learn.team import ALONE, Team
from calib_ebm.noise.bank import NoiseBank
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.modes import Mode
from calib_ebm.noise.order import NoiseOrder
from calib_ebm.noise.pipeline import (
    NoiseTask,
    TunedLm,
    TuningResult,
    ensure_bank,
    ensure_noise_lm,
    held_out_seed,
    make_sampler,
    rows_needed,
)
from calib_ebm.noise.sampler import Sampler
from calib_ebm.report.files import NoiseSample, write_noise_samples
from calib_ebm.shapes import Encoded
from calib_ebm.text.embedded import Language
from calib_ebm.text.task import TaskData
from calib_ebm.tokens.order import Place
from calib_ebm.tokens.tokenizer import TextTokenizer

Config = Mapping[str, Any]
Say = Callable[[str], None]

TUNING_NUMBERS = {"loss": "noise/loss"}

SHOWN = 20
"""Noise texts that the report shows beside their sources."""


@dataclass(frozen=True)
class NoiseSupply:
    """The noise of a run.

    Attributes:
        train: labels of the training texts: noise without a label of its own takes its source's.
        order: which rows of the bank a text gets.
        per_text: K.
        metrics: what is known of the noise model, for metrics.json.
    """

    bank: NoiseBank
    sources: np.ndarray
    train: Sequence[Encoded]
    order: NoiseOrder
    per_text: int
    held_out_bank: NoiseBank
    sampler: Sampler
    metrics: dict[str, float]

    def noise_for(self, place: Place) -> list[Encoded]:
        """The K noise texts of a text at a place of the training, or none."""
        _, epoch, position = place
        return [self._labelled(row) for row in self.order.at(epoch, position)]

    def _labelled(self, row: int) -> Encoded:
        text, source = self.bank[row], int(self.sources[row])
        if text.label >= 0 or source < 0:
            return text
        return text._replace(label=self.train[source].label)

    @property
    def held_out(self) -> list[Encoded]:
        """Noise around held-out texts."""
        return [self.held_out_bank[row] for row in range(len(self.held_out_bank))]

    def true_energies(self, material: Material) -> tuple[np.ndarray, np.ndarray] | None:
        """The exact -log(P_D / P_N) of the test half and of held-out noise, in nats.

        Known where the language is known and P_N has no prefix to sum over. Infinite where only
        one of the two can write the text: the sampling filter gives many texts probability 0, and
        noise of another segmentation than the tokenizer's is no text of the language.
        """
        language = material.task.truth
        mode = self.sampler.mode
        if language is None or mode.uses_source:
            return None
        classes = len(material.task.labels)
        data, noise = (
            np.asarray(self.sampler.log_prob_of_texts(texts, classes))
            - true_log_prob(language, material.tokenizer, texts)
            for texts in (material.test, self.held_out)
        )
        return data, noise

    def write_samples(self, folder: Path, material: Material, energy_N: Tensor | None) -> None:
        """Write some held-out noise beside the texts that it was drawn around."""
        sources = self.held_out_bank.sources
        samples = []
        for row in range(min(SHOWN, len(self.held_out_bank))):
            source = int(sources[row])
            samples.append(
                NoiseSample(
                    source=_words(material, material.test[source]) if source >= 0 else "",
                    masked=_prefix(self.sampler, material, row),
                    noise=_words(material, self.held_out_bank[row]),
                    energy=None if energy_N is None else float(energy_N[row]),
                )
            )
        write_noise_samples(folder, samples)


def true_log_prob(
    language: Language, tokenizer: TextTokenizer, texts: Sequence[Encoded]
) -> np.ndarray:
    """The exact log P_D of encoded texts in nats, (N,).

    Of one of another segmentation than the tokenizer's it is -inf: no text of the language is
    encoded so.
    """
    written = [tokenizer.decode(text.ids_a).strip() for text in texts]
    return np.asarray(
        [
            language.log_prob(words)
            if tokenizer.encode_pieces(words) == list(text.ids_a)
            else -np.inf
            for words, text in zip(written, texts, strict=True)
        ]
    )


def _words(material: Material, text: Encoded) -> str:
    decode = material.tokenizer.decode
    halves = [decode(ids).strip() for ids in (text.ids_a, text.ids_b) if ids is not None]
    return " | ".join(halves)


def _prefix(sampler: Sampler, material: Material, number: int) -> str | None:
    """What a sample was drawn around, gaps shown as [...]; None for noise without a prefix."""
    mode = sampler.mode
    if not mode.uses_source or mode.fills_in:
        return None
    symbols, vocabulary = sampler.lm.vocabulary.symbols, sampler.lm.vocabulary
    names = {symbols.mask: " [...] ", symbols.pair: " | ", symbols.unknown: " [?] "}
    shown, run = "", []
    for symbol in [*sampler.prefix(number), symbols.mask]:
        if symbol not in names:
            run.append(symbol)
            continue
        shown += material.tokenizer.decode(vocabulary.to_content(run)) + names[symbol]
        run = []
    return " ".join(shown.removesuffix(names[symbols.mask]).split())


def noise_task(material: Material) -> NoiseTask:
    """What noise is made for: the training texts, and the test half to measure on."""
    task = material.task
    return NoiseTask(
        name=task.name,
        digest=task.digests["train"],
        classes=len(task.labels),
        train=material.train,
        held_out=material.test,
        tokenizer=material.tokenizer,
    )


def tuned_lm(
    config: Config, material: Material, say: Say, note: Say, team: Team = ALONE
) -> TunedLm:
    """The tuned noise model, found or tuned, by all processes of a team together."""
    return ensure_noise_lm(
        config["noise"],
        noise_task(material),
        Path(str(config["cache_dir"])),
        int(config["seed"]),
        partial(_tune, config=config, say=say, note=note, team=team),
        say,
        first=team.first,
        told=team.told,
    )


def _tune(
    noise_lm: NoiseLm,
    train: Sequence[Encoded],
    held_out: Sequence[Encoded],
    mode: Mode,
    options: Config,
    folder: Path,
    seed: int,
    *,
    config: Config,
    say: Say,
    note: Say,
    team: Team,
) -> TuningResult:
    """Tune with a progress bar and a checkpoint to go on from."""
    resume, broken = find_checkpoint(folder)
    if broken:
        note(broken)
    if resume is not None:
        say("Going on with the tuning of the noise model.")
    trainer = config["trainer"]
    where = {name: trainer[name] for name in ("accelerator", "precision")}
    if team.world > 1:
        # A noise model is small beside what needs its weights in shards.
        where |= {name: trainer[name] for name in ("devices", "num_nodes")} | {"strategy": "ddp"}
    return tune(
        noise_lm,
        train,
        held_out,
        mode,
        options,
        folder,
        seed,
        callbacks=[progress("tuning noise", TUNING_NUMBERS, say)],
        trainer=where,
        team=team,
    )


def drawn_banks(
    config: Config, material: Material, plan: Plan, lm: TunedLm, say: Say
) -> tuple[tuple[NoiseBank, bool], tuple[NoiseBank, bool]]:
    """Noise of training texts and of the test half, each with whether it was found."""
    noise, cache = config["noise"], Path(str(config["cache_dir"]))
    task, seed = noise_task(material), int(config["seed"])
    noisy = plan.noisy(noise["share"])
    rows = rows_needed(noise, noisy.count(len(plan.lengths_at(0))), noisy.count(plan.texts))
    train = ensure_bank(noise, task, lm, cache, seed, rows, say=say)
    held_out = ensure_bank(
        noise, task, lm, cache, held_out_seed(seed), len(material.test), held_out=True, say=say
    )
    return train, held_out


def supply_noise(
    config: Config, material: Material, plan: Plan, recorder: RunRecorder, say: Say, team: Team
) -> NoiseSupply | None:
    """Tune and draw what is missing; None for plain fine-tuning.

    Raises:
        InputError: for settings that cannot be.
        Interrupted: on Ctrl-C; the same command goes on.
    """
    if config["energy"]["name"] == "none":
        return None
    with recorder.stage("tune_noise") as stage:
        lm = tuned_lm(config, material, say, partial(say_and_record, recorder, say), team)
        stage["skipped"] = lm.reused
    with recorder.stage("draw_noise") as stage:
        (bank, found), (held_out, _) = drawn_banks(config, material, plan, lm, say)
        stage["skipped"] = found
    recorder.set(noise_lm={"digest": lm.digest, **lm.manifest}, bank=bank.manifest)
    per_text, noisy = int(config["noise"]["per_text"]), plan.noisy(config["noise"]["share"])
    taken = per_text * noisy.count(plan.texts)
    if len(bank) < taken:
        recorder.note(
            f"The bank holds {len(bank)} noise texts and training takes {taken}: each is seen "
            f"about {taken / len(bank):.1f} times, never twice in an epoch."
        )
    metrics: dict[str, float] = {}
    if lm.manifest["perplexity"] is not None:
        metrics = {
            f"noise/perplexity{end.replace('_', '/')}": float(lm.manifest[f"perplexity{end}"])
            for end in ("", "_low", "_high")
        }
    return NoiseSupply(
        bank=bank,
        sources=bank.sources,
        train=material.train,
        order=NoiseOrder(bank.lengths, plan.lengths_at, per_text, int(config["seed"]), noisy),
        per_text=per_text,
        held_out_bank=held_out,
        sampler=make_sampler(
            config["noise"],
            noise_task(material),
            lm.lm,
            material.test,
            held_out_seed(int(config["seed"])),
        ),
        metrics=metrics,
    )


def only_tune(config: Config, task: TaskData, say: Say) -> Path:
    """Tune the noise model of a task, read with these settings, if it is missing; its folder."""
    quieten()
    with team_of(config["trainer"], say) as team:
        material = load_material(config, task, say)
        lm = tuned_lm(config, material, say, partial(say_and_record, None, say), team)
    perplexity = lm.manifest["perplexity"]
    say("found, nothing was tuned" if lm.reused else f"tuned in {lm.seconds:.0f} s")
    if perplexity is not None:
        say(f"perplexity of held-out texts, token-weighted: {perplexity:.2f}")
    return lm.folder


def only_draw(config: Config, task: TaskData, say: Say) -> list[Path]:
    """Draw the noise that a training on a task needs; the folders of both banks."""
    quieten()
    with team_of(config["trainer"], say) as team:
        material = load_material(config, task, say)
        plan = plan_training(config, material)
        lm = tuned_lm(config, material, say, partial(say_and_record, None, say), team)
        banks = drawn_banks(config, material, plan, lm, say)
    held_out = banks[1][0]
    for row in range(min(5, len(held_out))):
        say(f"  {_words(material, held_out[row])}")
    return [bank.folder for bank, _ in banks]
