"""The shipped task nodes: uniform, and with the reference's numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.text.glue import GLUE
from calib_ebm.text.load import SOURCES
from calib_ebm.text.splits import CUTS

Node = Callable[..., dict[str, Any]]
NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "task").glob("*.yaml"))
OWN = {"csv", "tsv", "jsonl", "parquet"}

# Steps, warm-up, learning rate, batch, epochs of the noise LM: the reference's scripts.
REFERENCE = {
    "sst2": (5_233, 314, 2e-5, 32, 4),
    "mnli": (30_968, 1_858, 2e-5, 32, 4),
    "mnli_mismatched": (30_968, 1_858, 2e-5, 32, 4),
    "qnli": (8_278, 496, 2e-5, 32, 4),
    "qqp": (28_318, 7_079, 2e-5, 32, 4),
    "mrpc": (2_296, 137, 1e-5, 16, 8),
    "cola": (5_536, 320, 1e-5, 16, 8),
    "rte": (2_036, 122, 2e-5, 16, 8),
    "wnli": (250, 10, 1e-5, 16, 16),
}


def test_every_task_has_its_file() -> None:
    assert set(NAMES) == {*GLUE, *OWN, "stsb", "embedded"}
    assert set(REFERENCE) == set(GLUE)


SMALL = {
    "encoder_layers",
    "encoder_width",
    "noise_layers",
    "noise_width",
    "noise_batch_size",
    "bank_epochs",
    "noise_share",
    "length_groups",
    "nce_weight",
    "nce_ramp",
}


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_uniform(name: str, node: Node) -> None:
    config = node(name)
    assert config["name"] == name
    assert config["source"] in SOURCES
    assert config["split"] in CUTS
    assert {"data_dir", "max_length", "limit_train"} <= set(config)
    recipe = config["recipe"]
    # The embedded task also says how small its models are, and what it weighs.
    assert [key for key in recipe if name != "embedded" or key not in SMALL] == [
        "encoder",
        "noise_lm",
        "max_steps",
        "epochs",
        "warmup_steps",
        "warmup_fraction",
        "lr",
        "batch_size",
        "noise_epochs",
        "mask_rate",
    ]
    assert (recipe["max_steps"] is None) != (recipe["epochs"] is None)
    assert (recipe["max_steps"] is None) == (recipe["warmup_steps"] is None)
    assert isinstance(recipe["lr"], float)


@pytest.mark.parametrize("name", REFERENCE)
def test_recipes_are_the_references(name: str, node: Node) -> None:
    config = node(name)
    recipe = config["recipe"]
    keys = ("max_steps", "warmup_steps", "lr", "batch_size", "noise_epochs")
    assert tuple(recipe[key] for key in keys) == REFERENCE[name]
    assert (recipe["encoder"], recipe["noise_lm"]) == ("roberta-base", "gpt2")
    assert (recipe["mask_rate"], config["max_length"]) == (0.4, 128)
    # The fraction stands in for the steps when a person sets others: it must mean the same.
    assert abs(recipe["warmup_fraction"] * recipe["max_steps"] - recipe["warmup_steps"]) <= 1


@pytest.mark.parametrize("name", sorted(OWN))
def test_own_files_have_every_setting(name: str, node: Node) -> None:
    config = node(name)
    assert config["train"] == "???"
    expected = {"dev": None, "text": "text", "text_pair": None, "label": "label", "labels": None}
    assert {key: config[key] for key in expected} == expected
    assert (config["id"], config["dev_fraction"]) == (None, 0.2)
