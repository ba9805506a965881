"""The noise stage of a run: a tuned noise model, noise to train on, noise to measure on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from calib_ebm.learn.checkpoints import find_checkpoint
from calib_ebm.learn.fit import progress
from calib_ebm.learn.meeting import team_of
from calib_ebm.learn.noise_supply import NoiseSupply, words_of
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
from calib_ebm.shapes import Encoded
from calib_ebm.text.task import TaskData

Config = Mapping[str, Any]
Say = Callable[[str], None]

TUNING_NUMBERS = {"loss": "noise/loss"}


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
        say(f"  {words_of(material, held_out[row])}")
    return [bank.folder for bank, _ in banks]
