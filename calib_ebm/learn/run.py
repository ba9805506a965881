"""The main job, stage by stage; each is skipped when what it makes is already there.

read and encode -> tune and draw the noise -> train jointly -> measure -> report
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger

from calib_ebm.classifier import EnergyClassifier
from calib_ebm.energy.lora import merge_lora
from calib_ebm.errors import Interrupted
from calib_ebm.learn.chunks import check_chunk
from calib_ebm.learn.data import JointData
from calib_ebm.learn.devices import device_of
from calib_ebm.learn.early import ReadTask, finished, require_same_data
from calib_ebm.learn.fit import fit
from calib_ebm.learn.folder import hold_run, open_run, run_folder
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.language import build_language_task, language_options
from calib_ebm.learn.loggers import build_dashboard, finish_dashboard
from calib_ebm.learn.measure import check_calibration
from calib_ebm.learn.meeting import refuse_separate, team_of
from calib_ebm.learn.noise_stage import supply_noise
from calib_ebm.learn.noise_supply import NoiseSupply
from calib_ebm.learn.prepare import (
    Material,
    Plan,
    build_loss,
    build_network,
    load_material,
    lora_options,
    plan_training,
)
from calib_ebm.learn.processes import place_of
from calib_ebm.learn.published import measure, publish
from calib_ebm.learn.quiet import quieten
from calib_ebm.learn.record import (
    RunRecorder,
    command_line,
    git_commit,
    say_and_record,
    versions,
)
from calib_ebm.learn.recordable import check_graphs
from calib_ebm.learn.sharding import is_sharded, whole_state
from calib_ebm.learn.team import Team
from calib_ebm.loss.joint import JointLoss
from calib_ebm.names import FACTS
from calib_ebm.report.files import read_metrics
from calib_ebm.report.page import write_report

Config = Mapping[str, Any]
Say = Callable[[str], None]


def run(config: Config, say: Say, read: ReadTask | None = None) -> Path:
    """Do every stage that is missing.

    Args:
        config: the resolved settings, plain values.
        say: takes lines for the person.
        read: the task, if it is read already.

    Returns:
        the run folder.

    Raises:
        InputError: for what a person has to put right.
        Interrupted: on Ctrl-C; the same command goes on.
        TrainingFailed: on a non-finite loss.
    """
    quieten()
    refuse_separate(config["trainer"])
    folder = run_folder(config)
    with team_of(config["trainer"], say) as team, _held(folder, team, say):
        # Perhaps it is finished by the process that has just let go of the folder.
        if not team.told(team.first and finished(config, folder, say)):
            _run(config, folder, team, say, read)
    return folder


def _held(folder: Path, team: Team, say: Say) -> AbstractContextManager[Any]:
    """The first process holds the lock for all of a run's processes."""
    return hold_run(folder, say) if team.first else nullcontext()


def _run(config: Config, folder: Path, team: Team, say: Say, read: ReadTask | None) -> None:
    if team.first:
        open_run(config, folder)
    team.told(None)  # from here on the folder is this run's
    recorder = RunRecorder(folder, active=team.first)
    recorder.set(
        command=command_line(),
        versions=versions(),
        git_commit=git_commit(),
        task=str(config["task"]["name"]),
        energy=str(config["energy"]["name"]),
        loss=str(config["loss"]["name"]),
        noise=None if config["energy"]["name"] == "none" else str(config["noise"]["name"]),
        seed=int(config["seed"]),
        status="running",
    )
    try:
        _stages(config, folder, recorder, say, read, team)
    except (Interrupted, KeyboardInterrupt) as stop:
        recorder.set(status="interrupted")
        raise Interrupted(f"{stop} The same command goes on from here.".strip()) from stop
    except BaseException:
        recorder.set(status="failed")
        raise


def _stages(
    config: Config,
    folder: Path,
    recorder: RunRecorder,
    say: Say,
    read: ReadTask | None,
    team: Team,
) -> None:
    with recorder.stage("load", earlier=0.0 if read is None else read.seconds):
        material = load_material(config, None if read is None else read.task, say)
        plan = plan_training(config, material)
        loss = build_loss(config["loss"], material.task.label_count_C)
        # Refused here, not when the noise is drawn.
        language = language_options(config["loss"])
        lora_options(config)
        check_chunk(config["trainer"])
        check_graphs(config["trainer"], loss, language is not None)
    task = material.task
    check_calibration(config["calibrator"], task)
    require_same_data(recorder.facts.get("data_digests"), task.digests, folder)
    recorder.set(
        labels=list(task.labels), metrics=list(task.metrics), data_digests=dict(task.digests)
    )
    say(
        f"{task.name}: {len(task.train)} texts to train on, {len(task.fit)} to calibrate on, "
        f"{len(task.test)} to report on; {plan.steps} steps of {plan.batch_size} texts."
    )
    say_and_record(recorder, say, *material.notes)
    supply = supply_noise(config, material, plan, recorder, say, team)
    dashboard = build_dashboard(config["logger"], folder, config) if team.first else None
    classifier = _trained(config, material, plan, loss, supply, folder, recorder, dashboard, say)
    with recorder.stage("measure"):
        measure(config, material, supply, classifier, folder, recorder, say)
    if team.first:
        finish_dashboard(dashboard, read_metrics(folder))
        with recorder.stage("report"):
            recorder.set(status="complete")
            write_report(folder)
        # The model folder holds the weights; what only resuming needs can go.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _trained(
    config: Config,
    material: Material,
    plan: Plan,
    loss: JointLoss,
    supply: NoiseSupply | None,
    folder: Path,
    recorder: RunRecorder,
    dashboard: Logger | None,
    say: Say,
) -> EnergyClassifier:
    """The trained classifier, from `model/` when an earlier part of the run got that far."""
    model = folder / "model"
    with recorder.stage("train") as stage:
        if (model / FACTS).exists():
            stage["skipped"] = True
            classifier = EnergyClassifier.from_pretrained(model)
            device = "cpu" if config["trainer"]["accelerator"] == "cpu" else "auto"
            return classifier.to(device_of(device, place_of(os.environ)))
        module = _joint_module(config, material, plan, loss, recorder, say)
        data = _joint_data(config, material, plan, supply)
        note = partial(say_and_record, recorder, say)
        trainer = fit(module, data, config["trainer"], folder, dashboard, say, note)
        note(*module.complaints)
        if module.steps is not None:
            stage["recorded_shapes"] = len(module.steps.recorded)
        if supply is not None and loss.gate is not None:
            note(*loss.gate.complaint())
        network = module.network
        if is_sharded(config["trainer"]):
            weights = whole_state(network)
            network = build_network(config, material)
            network.load_state_dict(weights)
        network.to(trainer.strategy.root_device)
        merge_lora(network.classifier)
        classifier = EnergyClassifier(
            network, material.tokenizer, material.task.labels, str(config["energy"]["name"])
        )
        if trainer.is_global_zero:
            publish(classifier, model)
        _wait_for_all(trainer)
        return classifier


def _joint_module(
    config: Config,
    material: Material,
    plan: Plan,
    loss: JointLoss,
    recorder: RunRecorder,
    say: Say,
) -> JointModule:
    """What is trained."""
    network = build_network(config, material)
    language, notes = build_language_task(config, material.tokenizer, network)
    say_and_record(recorder, say, *notes)
    return JointModule(
        network,
        loss,
        plan.optim,
        classes=len(material.task.labels),
        metrics=material.task.metrics,
        seed=int(config["seed"]),
        length_groups=int(config["trainer"]["length_groups"]),
        language=language,
        noise_chunk=check_chunk(config["trainer"]),
        one_pass=is_sharded(config["trainer"]),
        graphs=config["trainer"]["graphs"],
    )


def _joint_data(
    config: Config, material: Material, plan: Plan, supply: NoiseSupply | None
) -> JointData:
    """What it is trained on."""
    return JointData(
        material.tokenizer,
        material.train,
        material.fit,
        None if supply is None else supply.noise_for,
        plan.order,
        eval_batch_size=int(config["trainer"]["eval_batch_size"]),
        total_steps=plan.steps,
        with_noise=0 if supply is None else supply.order.noisy.with_noise,
        workers=int(config["trainer"]["workers"]),
    )


def _wait_for_all(trainer: pl.Trainer) -> None:
    if trainer.world_size > 1:
        trainer.strategy.barrier("model")
