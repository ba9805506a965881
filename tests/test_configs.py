"""Every shipped choice of every group is composed from the real files, and builds what it names."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from calib_ebm.calibration.calibrators import CALIBRATORS, build_calibrator
from calib_ebm.config_path import conf_dir
from calib_ebm.energy.heads import ENERGIES, build_energy
from calib_ebm.errors import InputError
from calib_ebm.learn.callbacks import LineProgress
from calib_ebm.learn.fit import build_trainer
from calib_ebm.learn.language import language_options
from calib_ebm.learn.loggers import DASHBOARDS, build_dashboard
from calib_ebm.learn.prepare import build_loss
from calib_ebm.loss.choice import LABEL_LOSSES
from calib_ebm.noise.modes import MODES, build_mode
from calib_ebm.settings import noise_default
from calib_ebm.text.glue import glue_task

NOT_CHOICES = {"noise/base", "loss/base"}
CHOICES = sorted(
    str(path.relative_to(conf_dir()).with_suffix(""))
    for path in conf_dir().glob("*/*.yaml")
    if str(path.relative_to(conf_dir()).with_suffix("")) not in NOT_CHOICES
)
FILES = ("csv", "tsv", "jsonl", "parquet")


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved settings of `train`."""
    OmegaConf.register_new_resolver("noise_default", noise_default, replace=True)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        plain = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def of(group: str) -> list[str]:
    """The choices of a group."""
    return [choice.split("/")[1] for choice in CHOICES if choice.startswith(f"{group}/")]


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_composes(choice: str) -> None:
    group, name = choice.split("/")
    extra = ["task.train=x"] if group == "task" and name in FILES else []
    config = composed(f"{group}={name}", *extra)
    assert {"task", "encoder", "noise", "energy", "loss", "optim", "trainer", "logger"} <= {*config}
    assert "???" not in str(config)


def test_groups_and_tables_name_the_same() -> None:
    assert {*of("energy")} == {*ENERGIES, "none"}
    assert {*of("noise")} == {*MODES}
    assert {*of("calibrator")} == {*CALIBRATORS}
    assert {*of("loss")} == {*LABEL_LOSSES}
    assert {*of("logger")} == {*DASHBOARDS}


@pytest.mark.parametrize("name", of("energy"))
def test_each_energy_builds(name: str) -> None:
    config = composed(f"energy={name}")["energy"]
    assert config["name"] == name
    built = build_energy(name, 8, float(config.get("dropout", 0.1)))
    assert (built is None) == (name == "none")


@pytest.mark.parametrize("name", of("noise"))
def test_each_noise_builds(name: str) -> None:
    config = composed(f"noise={name}")["noise"]
    assert config["name"] == build_mode(config).name == name


@pytest.mark.parametrize("name", of("calibrator"))
def test_each_calibrator_builds(name: str) -> None:
    assert build_calibrator(composed(f"calibrator={name}")["calibrator"]).name == name


@pytest.mark.parametrize("name", of("loss"))
def test_each_loss_builds(name: str) -> None:
    config = composed(f"loss={name}", "task=sst2")["loss"]
    built = build_loss(config, (3, 1))
    assert config["name"] == name and type(built.label) is LABEL_LOSSES[name]
    assert (built.nce_weight, built.ramp) == (3.0, 1.0)
    assert built.gate is not None and built.gate.full_at == 0.1
    # No setting is there that nothing reads.
    options = language_options(config)
    further = {} if options is None else asdict(options)
    assert {*config} == {"name", "nce_weight", "ramp", "gate", *built.label.settings, *further}
    assert (options is None) == (name != "joint_mlm")


@pytest.mark.parametrize("name", of("loss"))
def test_each_loss_joins_each_energy_with_that_energy_s_weight(name: str) -> None:
    for energy in ("sharp_hidden", "scalar"):
        config = composed(f"loss={name}", f"energy={energy}")
        built, recipe = build_loss(config["loss"], (3, 1)), config["task"]["recipe"]
        assert config["energy"]["name"] == energy
        assert built.nce_weight == recipe["nce_weight"][energy]
        assert built.ramp == recipe["nce_ramp"]


@pytest.mark.parametrize("name", of("trainer"))
def test_each_trainer_builds_or_says_what_is_missing(name: str, tmp_path: Path) -> None:
    config = composed(f"trainer={name}")["trainer"]

    def build() -> Any:
        progress = LineProgress("x", {}, lambda line: None)
        return build_trainer(config, steps=20, folder=tmp_path, loggers=[], callbacks=[progress])

    if name == "gpu":
        with pytest.raises(InputError, match="trainer cannot be built"):
            build()
    else:
        trainer = build()
        assert trainer.max_steps == 20
        assert name not in ("ddp_cpu", "fsdp_cpu") or trainer.num_devices == 2


@pytest.mark.parametrize("name", of("logger"))
def test_each_dashboard_builds(name: str, tmp_path: Path) -> None:
    config = composed(f"logger={name}")["logger"]
    assert (build_dashboard(config, tmp_path, {}) is None) == (name == "csv")


@pytest.mark.parametrize("name", of("task"))
def test_each_task_has_a_whole_recipe(name: str) -> None:
    config = composed(f"task={name}", *(["task.train=x"] if name in FILES else []))
    recipe = config["task"]["recipe"]
    assert (recipe["max_steps"] is None) != (recipe["epochs"] is None)
    assert config["encoder"]["name_or_path"] == recipe["encoder"]
    assert config["noise"]["lm"] == recipe["noise_lm"]
    assert config["optim"]["lr"] == recipe["lr"] and recipe["warmup_fraction"] >= 0
    if config["task"]["source"] == "glue" and name != "stsb":
        assert glue_task(name).name == name


def test_sst2_means_the_paper_s_setting() -> None:
    config = composed("task=sst2", "energy=sharp_hidden")
    assert config["encoder"]["name_or_path"] == "roberta-base" and config["noise"]["lm"] == "gpt2"
    assert config["trainer"]["max_steps"] == 5233 and config["optim"]["lr"] == 2e-5
    assert config["optim"]["batch_size"] == 32 and config["task"]["max_length"] == 128
    assert config["noise"]["tune"]["lr"] == 5e-6 and config["noise"]["tune"]["batch_size"] == 8
    assert config["noise"]["mask_rate"] == 0.4 and config["noise"]["top_k"] == 20


def test_no_choice_names_a_class_to_be_called() -> None:
    for path in conf_dir().rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8"), path


# METHOD of each task as He et al. have it: steps, warm-up, rate, batch, epochs of the noise model.
PAPER = {
    "sst2": (5233, 314, 2e-5, 32, 4),
    "mnli": (30968, 1858, 2e-5, 32, 4),
    "qnli": (8278, 496, 2e-5, 32, 4),
    "qqp": (28318, 7079, 2e-5, 32, 4),
    "mrpc": (2296, 137, 1e-5, 16, 8),
    "cola": (5536, 320, 1e-5, 16, 8),
    "rte": (2036, 122, 2e-5, 16, 8),
    "wnli": (250, 10, 1e-5, 16, 16),
}


def test_there_is_an_experiment_for_each_task_of_the_paper() -> None:
    assert {*of("experiment")} == {f"paper_{task}" for task in PAPER}


@pytest.mark.parametrize("task", PAPER)
def test_the_paper_s_setting_is_named_whatever_the_defaults(task: str) -> None:
    config = composed(f"experiment=paper_{task}", "energy=hidden", "seed=3")
    optim, trainer, noise = config["optim"], config["trainer"], config["noise"]
    found = (
        trainer["max_steps"],
        optim["warmup_steps"],
        optim["lr"],
        optim["batch_size"],
        noise["tune"]["epochs"],
    )
    assert found == PAPER[task]
    assert (config["task"]["name"], config["task"]["split"]) == (task, "file_halves")
    assert (config["encoder"]["name_or_path"], noise["lm"]) == ("roberta-base", "gpt2")
    assert (noise["mode"], noise["mask_rate"], noise["top_k"]) == ("masked", 0.4, 20)
    assert (noise["tune"]["batch_size"], noise["tune"]["lr"]) == (8, 5e-6)
    assert [config["loss"][name] for name in ("nce_weight", "ramp", "gate")] == [1.0, 0.0, 0.0]
    assert (config["energy"]["name"], config["seed"]) == ("hidden", 3)
    # Named in the experiment itself, not by way of the task's recipe, which may move.
    raw = OmegaConf.load(conf_dir() / "experiment" / f"paper_{task}.yaml")
    assert not any(OmegaConf.is_interpolation(raw.optim, key) for key in raw.optim)
    assert raw.trainer.max_steps == PAPER[task][0]
