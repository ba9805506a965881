"""Two gloo processes give what one gives, by value, on a dev set of odd length."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from calib_ebm.learn.measure import Scored, score_set
from calib_ebm.report.files import read_predictions
from calib_ebm.shapes import Encoded

Settings = Callable[..., dict[str, Any]]
# No dropout: its masks depend on the rank, and so would the weights.
STILL = ("encoder.small.dropout=0", "trainer.log_every=1")
SCALAR = ("energy.dropout=0", "energy=scalar", "loss.gate=0")
# It opens and shuts again, by the labels of both processes.
GATED = ("loss.gate=0.01", "optim.lr=0.03")
POSCAL = ("loss=poscal", "loss.refreshes_per_epoch=2", "loss.poscal_weight=5", "energy=none")


def train(overrides: list[str], folder: Path, cache: Path) -> str:
    """Run the command as a person does; what it said."""
    command = [
        sys.executable,
        "-m",
        "calib_ebm.train",
        f"run_dir={folder}",
        f"cache_dir={cache}",
        *overrides,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, cwd=cache.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def gate_openings(folder: Path) -> list[float]:
    """Of each step, from history.csv; none where there is no gate."""
    with (folder / "history.csv").open(newline="") as file:
        return [float(row["loss/gate"]) for row in csv.DictReader(file) if "loss/gate" in row]


@pytest.mark.parametrize(
    ("words", "chunks"),
    [
        (SCALAR, ()),
        ((*SCALAR, "noise.per_text=2"), ("trainer.noise_chunk=5",)),
        ((*SCALAR, *GATED), ()),
        (POSCAL, ()),
        ((*POSCAL, "loss.table=rescored"), ()),
    ],
)
def test_two_processes_train_and_measure_as_one(
    tmp_path: Path, tiny: tuple[str, ...], words: tuple[str, ...], chunks: tuple[str, ...]
) -> None:
    """With the noise in chunks, too: what is exchanged are the gradients of all of them."""
    shrunk = [o for o in tiny if not o.startswith("trainer=")]
    one, two = tmp_path / "one", tmp_path / "two"
    train([*shrunk, *STILL, *words, "trainer=cpu"], one, tmp_path / "cache")
    said = train([*shrunk, *STILL, *words, "trainer=ddp_cpu", *chunks], two, tmp_path / "cache")
    assert said.count("run folder:") == 1, "one process speaks"
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (two, one))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert math.isclose(ours[name], value, rel_tol=2e-4, abs_tol=2e-4), name
    openings = [gate_openings(f) for f in (two, one)]
    assert openings[0] == pytest.approx(openings[1], abs=1e-3)
    assert (max(openings[1], default=0) > 0.05) == ("loss.gate=0.01" in words)
    tables = [read_predictions(f) for f in (two, one)]
    assert tables[0].ids == tables[1].ids and len(tables[0].ids) % 2 == 1
    assert abs(tables[0].logits_NC - tables[1].logits_NC).max() < 1e-4


class Stub:
    """Scores a text by its first token, for ranks that share a set."""

    def score_encoded(self, texts: list[Encoded], rank: int, world: int, **_: Any) -> Any:
        from calib_ebm.classifier import ScoredRows

        rows = torch.arange(rank, len(texts), world)
        first = torch.tensor([float(texts[row].ids_a[0]) for row in rows.tolist()])
        return ScoredRows(rows, first.unsqueeze(-1), -first)


def _rank(rank: int, world: int, rendezvous: str, texts: list[Encoded], out: str) -> None:
    torch.distributed.init_process_group(
        "gloo", f"file://{rendezvous}", rank=rank, world_size=world
    )
    scored: Scored = score_set(Stub(), texts)  # type: ignore[arg-type]  # a stub
    torch.save([scored.logits_NC, scored.energy_N], f"{out}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("size", [5, 1])
def test_each_text_is_counted_once_and_every_rank_has_all(tmp_path: Path, size: int) -> None:
    texts = [Encoded([10 * row], None, 0) for row in range(size)]
    spawn(_rank, args=(2, str(tmp_path / "meet"), texts, str(tmp_path / "out")), nprocs=2)
    for rank in range(2):
        logits, energy = torch.load(tmp_path / f"out-{rank}.pt", weights_only=True)
        assert logits[:, 0].tolist() == [10.0 * row for row in range(size)]
        assert energy.tolist() == [-10.0 * row for row in range(size)]
