"""Finished runs made up from random numbers: a model's logits are the truth's, sharpened."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calib_ebm.calibration.intervals import estimates_with_intervals
from calib_ebm.calibration.temperature import Temperature
from calib_ebm.report.files import (
    write_energies,
    write_json,
    write_metrics,
    write_predictions,
    write_truth,
)
from calib_ebm.report.texts import write_texts
from calib_ebm.shapes import Example

Folder = Callable[..., Path]


def config_of(task: str, energy: str, seed: int, further: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "seed": seed,
        "run_dir": None,
        "task": {"name": task, "max_length": 32, "recipe": {"lr": 0.1}},
        "energy": {"name": energy},
        "loss": {"name": "cross_entropy", "nce_weight": 1.0 if energy == "none" else 2.0},
        "noise": {"name": "masked", "per_text": 1},
        "encoder": {"name_or_path": "small"},
        "calibrator": {"name": "temperature"},
        "trainer": {"max_steps": 300, "threads": None},
    }
    for name, value in further.items():
        group, _, key = name.partition(".")
        config[group] = {**config[group], key: value} if key else value
    return config


def metrics_of(logits: np.ndarray, labels: np.ndarray, splits: list[str]) -> dict[str, float]:
    halves = {}
    for half in ("fit", "test"):
        rows = np.asarray([one == half for one in splits])
        halves[half] = torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows])
    calibrator = Temperature().fit(*halves["fit"])
    test_NC, labels_N = halves["test"]
    both = {"test": test_NC.softmax(dim=1), "test_calibrated": calibrator.probabilities(test_NC)}
    metrics = {}
    for stage, probs_NC in both.items():
        for name, estimate in estimates_with_intervals(probs_NC, labels_N, resamples=50).items():
            metrics[f"{stage}/{name}"] = estimate.value
            metrics[f"{stage}/{name}/low"], metrics[f"{stage}/{name}/high"] = estimate[1:]
    return metrics


@pytest.fixture
def run_folder(tmp_path: Path) -> Folder:
    """Write a run; `sharp` above 1 is overconfident, `words` makes the texts.

    One that `knows_nothing` gives each text the shares of the classes.
    """

    def write(
        *,
        task: str = "toy",
        energy: str = "none",
        seed: int = 1,
        sharp: float = 1.0,
        texts: int = 400,
        data_seed: int = 0,
        classes: int = 2,
        name: str | None = None,
        words: str = "some words",
        further: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        truth: bool = False,
        knows_nothing: bool = False,
    ) -> Path:
        folder = tmp_path / "runs" / (name or f"{task}-{energy}-seed{seed}")
        folder.mkdir(parents=True)
        data = np.random.default_rng(data_seed)
        true = 1.5 * data.standard_normal((texts, classes))
        probs = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
        labels = np.asarray([data.choice(classes, p=row) for row in probs])
        logits = sharp * (true + 0.2 * np.random.default_rng(seed).standard_normal(true.shape))
        if knows_nothing:
            logits[:] = np.log(np.bincount(labels, minlength=classes) / texts)
        ids = [f"dev-{index}" for index in range(texts)]
        splits = ["fit" if index % 2 else "test" for index in range(texts)]
        energies = None if energy == "none" else -logits.max(axis=1)
        write_predictions(folder, ids, splits, labels, logits, energies)
        write_metrics(folder, metrics_of(logits, labels, splits))
        reported = [one for one, split in zip(ids, splits, strict=True) if split == "test"]
        write_texts(folder, [Example(one, f"{words} {one}", None, 0) for one in reported])
        if energies is not None:
            write_energies(folder, energies[::2], energies[::2] + 1)
        if truth:
            write_truth(folder, ids, probs)
        ece = "".join(f"{step},{0.01 * sharp * step:.4f}\n" for step in (1, 2, 3))
        (folder / "history.csv").write_text("step,val/cal/ece\n" + ece)
        config = config_of(task, energy, seed, further or {})
        (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        record = {
            "task": task,
            "labels": [f"class {index}" for index in range(classes)],
            "metrics": ["acc"],
            "energy": energy,
            "noise": None if energy == "none" else "masked",
            "seed": seed,
            "status": "complete",
            "temperature": 1.0,
            "data_digests": {"dev": f"digest of {data_seed}"},
            "stages": {
                "train": {"seconds": 10.0 * seed, "peak_memory_mb": 500.0, "skipped": False},
                "draw_noise": {"seconds": 4.0, "peak_memory_mb": 700.0, "skipped": seed > 1},
            },
        }
        write_json(folder / "run.json", record | dict(run or {}))
        return folder

    return write


@pytest.fixture
def grid(run_folder: Folder) -> list[Path]:
    """Plain fine-tuning, badly overconfident, and one energy, calibrated: three seeds each."""
    sharp = {"none": 3.0, "hidden": 1.0}
    return [
        run_folder(energy=energy, seed=seed, sharp=sharp[energy])
        for energy in sharp
        for seed in (1, 2, 3)
    ]
