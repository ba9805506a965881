"""A run folder made up from random numbers: what the tests of this room read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib_ebm.report.files import (
    NoiseSample,
    write_energies,
    write_json,
    write_metrics,
    write_noise_samples,
    write_predictions,
    write_truth,
)

NASTY = '<script>alert(1)</script> & "quotes" $x_1$ </title></svg> [bold]rich[/bold] #010104'

MakeRun = Callable[..., Path]


def run_json(classes: int, energy: str) -> dict[str, Any]:
    joint = energy != "none"
    return {
        "command": "python -m calib_ebm.train energy=" + energy,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.4"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567+changes",
        "data_digests": {"train": "a" * 64, "dev": "b" * 64},
        "stages": {
            "tune_noise": {"seconds": 31.5, "peak_memory_mb": 812.0, "skipped": False},
            "draw_noise": {"seconds": 0.0, "peak_memory_mb": 0.0, "skipped": True},
            "train": {"seconds": 95.25, "peak_memory_mb": 1024.0, "skipped": False},
        },
        "notes": ["2 texts of train were empty and were dropped with their labels."],
        "task": "embedded",
        "labels": [f"class {index}" for index in range(classes)],
        "metrics": ["acc", "mcc"],
        "energy": energy,
        "noise": "masked" if joint else None,
        "seed": 3,
        "status": "complete",
        "temperature": 1.75,
        "noise_lm": {"name": "small", "perplexity": 3.64} if joint else None,
        "bank": {"digest": "c" * 64, "samples": 4000} if joint else None,
    }


def metrics_json(energy: str) -> dict[str, float]:
    values = {
        "test/cls/acc": 0.8125,
        "test/cls/mcc": 0.6012,
        "test/cal/ece": 0.0931,
        "test/cal/ece_classwise": 0.0772,
        "test/cal/ece_pooled": 0.0701,
        "test/nll": 0.5423,
        "test/brier": 0.2871,
        "test_calibrated/cls/acc": 0.8125,
        "test_calibrated/cls/mcc": 0.6012,
        "test_calibrated/cal/ece": 0.0312,
        "test_calibrated/cal/ece_classwise": 0.0341,
        "test_calibrated/cal/ece_pooled": 0.0285,
        "test_calibrated/nll": 0.4311,
        "test_calibrated/brier": 0.2533,
    }
    metrics = dict(values)
    for name, value in values.items():
        metrics[f"{name}/low"], metrics[f"{name}/high"] = 0.8 * value, 1.2 * value
    metrics |= {"test/cal/ece/floor": 0.0274, "test/cal/ece/p_value": 0.001}
    metrics |= {"test_calibrated/cal/ece/floor": 0.0295, "test_calibrated/cal/ece/p_value": 0.412}
    if energy != "none":
        metrics |= {"noise/perplexity": 3.64, "nce/accuracy": 0.861}
        metrics |= {"energy/data": -2.1, "energy/noise": 1.3, "energy/gap": 3.4}
    return metrics


def history_csv(rows: int, energy: str, random: np.random.Generator) -> str:
    lines = ["step,loss/ce,loss/nce,nce/accuracy,val/cls/acc,val/cal/ece"]
    for row in range(rows):
        fall = np.exp(-row / 60)
        ce = 0.3 + 0.4 * fall + 0.05 * random.standard_normal()
        nce, told = "", ""
        if energy != "none":
            nce = f"{0.6 + 0.8 * fall + 0.05 * random.standard_normal():.6f}"
            told = f"{0.9 - 0.4 * fall:.6f}"
        val = f"{0.8 - 0.2 * fall:.4f},{0.03 + 0.05 * (1 - fall):.4f}" if row % 20 == 0 else ","
        lines.append(f"{10 * row},{ce:.6f},{nce},{told},{val}")
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, classes: int, energy: str, random: np.random.Generator) -> None:
    texts = 800
    logits = 2.0 * random.standard_normal((texts, classes))
    probs = np.exp(logits / 1.7)
    probs /= probs.sum(axis=1, keepdims=True)
    labels = np.asarray([random.choice(classes, p=row) for row in probs])
    ids = [f"dev-{index}" for index in range(texts)]
    splits = ["fit" if index % 2 else "test" for index in range(texts)]
    energies = None if energy == "none" else -logits.max(axis=1)
    write_predictions(folder, ids, splits, labels, logits, energies)
    write_truth(folder, ids, probs)
    if energy != "none":
        true_data, true_noise = random.normal(-2, 1, 300), random.normal(2, 1.2, 300)
        true_noise[:7] = np.inf
        learned = [0.8 * one + random.normal(0, 0.4, 300) for one in (true_data, true_noise)]
        learned[1][:7] = 4.0
        write_energies(folder, learned[0], learned[1], true_data, true_noise)


@pytest.fixture
def nasty() -> str:
    return NASTY


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make a run folder; `embedded` keeps the exact probabilities of the task."""

    def make(
        *,
        classes: int = 2,
        energy: str = "sharp_hidden",
        rows: int = 200,
        embedded: bool = False,
        name: str = "run",
        nasty: bool = False,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        random = np.random.default_rng(0)
        run = run_json(classes, energy)
        text = NASTY if nasty else "the old cook sang a song to the quiet river"
        if nasty:
            run |= {"task": NASTY, "notes": [NASTY], "command": NASTY, "git_commit": NASTY}
            run |= {"labels": [NASTY, *run["labels"][1:]], "data_digests": {NASTY: NASTY}}
            run |= {"versions": {NASTY: NASTY}, "noise_lm": {NASTY: NASTY}, "noise": NASTY}
        write_json(folder / "run.json", run)
        config = {"energy": energy, "note": text, "trainer": {"max_steps": 300}}
        (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        (folder / "history.csv").write_text(history_csv(rows, energy, random), encoding="utf-8")
        write_tables(folder, classes, energy, random)
        metrics = metrics_json(energy)
        if embedded:
            metrics |= {"test/cal/true": 0.081, "test/cal/true_pointwise": 0.09}
            metrics |= {"test_calibrated/cal/true": 0.021, "energy/true_correlation": 0.962}
        else:
            (folder / "truth.parquet").unlink()
        write_metrics(folder, metrics)
        if energy != "none":
            masked = "the <mask> sang <mask> river"
            samples = [NoiseSample(text, masked, text.replace("old", "young"), -0.25)] * 25
            write_noise_samples(folder, samples)
        return folder

    return make
