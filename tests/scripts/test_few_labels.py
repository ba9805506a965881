"""The table of few labels, from made-up tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from calib_ebm.calibration.few_labels import after_few_labels
from calib_ebm.report.predictions import Predictions, write_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "few_labels.py"


def write(folder: Path, method: str, seed: int, texts: int) -> Predictions:
    rng = np.random.default_rng(seed)
    true_NC = rng.standard_normal((texts, 2))
    table = Predictions(
        ids=tuple(f"dev-{n}" for n in range(texts)),
        splits=("test",) * texts,
        labels_N=(true_NC[:, 1] + rng.logistic(size=texts) > true_NC[:, 0]).astype(np.int64),
        logits_NC=3 * true_NC,
        energy_N=None,
        folds_N=np.arange(texts) % 5,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder, table)
    (folder / "predictions.parquet").rename(folder / f"{method}-seed{seed}.parquet")
    return table


def printed(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)


def test_it_prints_the_means_over_draws_and_seeds(tmp_path: Path) -> None:
    runs = [write(tmp_path / "sst2", "none", seed, 120) for seed in (1, 2)]
    write(tmp_path / "sst2", "other", 1, 120)
    done = printed(str(tmp_path), "none", "absent")
    assert (done.returncode, done.stderr) == (0, "")
    head, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert head[3:] == [
        *("no label", "10 labels", "20 labels", "50 labels", "100 labels", "200 labels")
    ]
    assert [row[:3] for row in rows] == [["sst2", "none", prior] for prior in ("0", "1", "4", "16")]
    assert rows[0][3] == rows[3][3] and rows[0][4] != rows[3][4]
    assert [row[-2:] for row in rows] == [["-", "-"]] * 4  # 120 texts leave half for 50 labels
    found = [
        after_few_labels(
            torch.from_numpy(run.logits_NC),
            torch.from_numpy(run.labels_N),
            (0, 10, 20, 50),
            draws=100,
            prior=4.0,
        )
        for run in runs
    ]
    ece_S = sum(one.ece_SR.mean(dim=1) for one in found) / 2
    nll_S = sum(one.nll_SR.mean(dim=1) for one in found) / 2
    both = ([f"{value:.3f}" for value in pair] for pair in zip(ece_S, nll_S, strict=True))
    assert rows[2][3:7] == [" / ".join(each.removeprefix("0") for each in pair) for pair in both]


def test_a_folder_without_such_tables_is_an_error(tmp_path: Path) -> None:
    done = printed(str(tmp_path), "none")
    assert done.returncode == 2 and not done.stdout
    assert "has no tables of none" in done.stderr and "to do" in done.stderr
