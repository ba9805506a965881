"""The scripts run on small made-up input, so that a renamed function is noticed."""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pyarrow import parquet

from calib_ebm import settings as settings_of
from calib_ebm.config_path import conf_dir
from calib_ebm.settings import check_kinds, register_resolvers

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare_energies.py"


def made_up(folder: Path, energy: str, seed: int, ece: float, status: str = "complete") -> None:
    """A run folder with the little that the script reads."""
    folder.mkdir()
    noise = None if energy == "none" else "masked"
    stages = {"train": {"seconds": 10.0 * seed}}
    run = {"energy": energy, "noise": noise, "seed": seed, "status": status, "stages": stages}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.json").write_text(json.dumps({"test/cls/acc": 0.5, "test/cal/ece": ece}))


def test_energies_are_compared_in_pairs_of_the_same_seed(tmp_path: Path) -> None:
    for seed, (plain, joint) in enumerate([(0.20, 0.10), (0.30, 0.21), (0.40, 0.29)], start=1):
        made_up(tmp_path / f"none-{seed}", "none", seed, plain)
        made_up(tmp_path / f"hidden-{seed}", "hidden", seed, joint)
    made_up(tmp_path / "hidden-4", "hidden", 4, 0.9, status="interrupted")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "*"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "left out, not finished: hidden-4" in done.stderr
    none, hidden = done.stdout.splitlines()[2:]
    assert none.startswith("| none | - | 3 | 0.500 | 0.300 |")
    # Differences -.10, -.09, -.11: mean -.1, deviation .01, t(.975, 2) = 4.303.
    assert "| 0.200 (-0.100 [-0.125, -0.075]) |" in hidden


def test_runs_lie_anywhere_and_where_there_is_none_it_is_said(tmp_path: Path) -> None:
    made_up(tmp_path / "none-1", "none", 1, 0.2)
    (tmp_path / "notes").mkdir()
    command = [sys.executable, str(SCRIPT)]
    found = subprocess.run([*command, f"{tmp_path}/*"], capture_output=True, text=True, check=True)
    assert "| none | - | 1 | 0.500 | 0.200 |" in found.stdout
    lost = subprocess.run([*command, f"{tmp_path}/notes"], capture_output=True, text=True)
    assert lost.returncode != 0 and "names no folder with a run.json" in lost.stderr
    assert "Traceback" not in lost.stderr


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made_up(tmp_path / name, "none", 1, 0.1)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "*"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0 and "two runs" in done.stderr


GRID = SCRIPT.parent / "grid.py"
GRIDS = SCRIPT.parent / "grids"
A_GRID = """
common: [debug=smoke, '{size}', trainer=cpu]
tasks: {embedded: [task=embedded]}
methods: {none: [energy=none], hidden: [energy=hidden], broken: [energy=none, optim.lr=-1]}
per_text: [1, 2]
seeds: [1, 2]
"""
SMALL = (
    "size=task.train_size=64",
    "task.dev_size=40",
    "encoder.small.width=16",
    "encoder.small.layers=1",
    "noise.small.width=16",
    "noise.small.layers=1",
)


def grid(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "grid.yaml").write_text(A_GRID)
    command = [sys.executable, str(GRID), "grid.yaml", "runs", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_grid_names_its_runs_and_those_with_noise_once_for_each_k(tmp_path: Path) -> None:
    done = grid(tmp_path, "--status", *SMALL)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "0 of 8 runs are complete."
    assert [line.split() for line in done.stdout.splitlines()[1:5]] == [
        ["missing", "embedded-none-seed1"],
        ["missing", "embedded-hidden-k1-seed1"],
        ["missing", "embedded-hidden-k2-seed1"],
        ["missing", "embedded-broken-seed1"],
    ]


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_settings_of_each_grid_are_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command takes them, but for what stands in files that are not here."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import grid as script

    grid, glue = script.read_grid(path), {"glue": "glue"}
    runs = {run.overrides[:-1]: run for run in script.expand(grid, glue)}
    assert {run.task for run in runs.values()} == {*grid["tasks"]}
    register_resolvers()
    for words, run in runs.items():
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("train", overrides=[*words], return_hydra_config=True)
            config = OmegaConf.masked_copy(composed, [*composed.keys() - {"hydra"}])
            check_kinds(config, "train", words)
        settings = OmegaConf.create(settings_of.plain(config))
        method, _, per_text = run.method.partition("-k")
        # A method's own settings are stronger than its task's, and these than those of all.
        said = [*grid["common"], *grid["tasks"][run.task], *grid["methods"][method]]
        said += [f"noise.per_text={per_text}"] if per_text else []
        last = {word.partition("=")[0]: word.format(**glue) for word in said}
        for name, word in last.items():
            is_group = "." not in name
            found = OmegaConf.select(composed.hydra.runtime.choices if is_group else settings, name)
            assert found == OmegaConf.select(OmegaConf.from_dotlist([word]), name), (run, word)


def test_a_grid_goes_on_after_a_failure_and_leaves_finished_runs_alone(tmp_path: Path) -> None:
    words = ("--only", "none", "--only", "broken", "--at-once", "2", *SMALL)
    first = grid(tmp_path, *words)
    assert first.returncode == 1
    assert "2 of 4 runs are complete." in first.stdout
    assert first.stdout.count("failed; see runs/embedded-broken-seed") == 2
    assert "optim.lr is -1" in (tmp_path / "runs" / "embedded-broken-seed1.log").read_text()
    report = tmp_path / "runs" / "embedded-none-seed1" / "report.html"
    before = report.stat().st_mtime_ns
    second = grid(tmp_path, *words)
    assert "embedded-none" not in second.stdout and report.stat().st_mtime_ns == before


def test_a_grid_goes_on_from_the_tables_alone(tmp_path: Path) -> None:
    words = ("--only", "none", "--tables", "kept", *SMALL)
    assert grid(tmp_path, *words).returncode == 0
    kept = tmp_path / "kept"
    here = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert here == ["costs.json", "embedded/none-seed1.parquet", "embedded/none-seed2.parquet"]
    costs = json.loads((kept / "costs.json").read_text())
    assert [*costs] == ["embedded-none-seed1", "embedded-none-seed2"]
    for seconds in costs.values():
        assert seconds["train"] > 0 and seconds["tune_noise"] is seconds["draw_noise"] is None
    table = (kept / "embedded" / "none-seed1.parquet").read_bytes()
    run = tmp_path / "runs" / "embedded-none-seed1"
    assert table == (run / "predictions.parquet").read_bytes()
    shutil.rmtree(tmp_path / "runs")
    again = grid(tmp_path, *words)
    assert again.returncode == 0 and again.stdout == "2 of 2 runs are complete.\n"
    assert not (tmp_path / "runs").exists()
    assert json.loads((kept / "costs.json").read_text()) == costs


def test_runs_are_made_at_once_and_none_is_begun_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import grid as script

    runs = [script.Run("embedded", "none", seed, ()) for seed in range(6)]
    given = argparse.Namespace(runs=tmp_path, tables=None, status=False, at_once=2)
    together, begun = threading.Barrier(2, timeout=60), []

    def make(run: Any, *_: Any) -> bool:
        begun.append(run.seed)
        together.wait()  # none gets further unless two are here
        if len(begun) == 4:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(script, "make", make)
    with pytest.raises(KeyboardInterrupt):
        script.make_all(runs, given, ())
    assert sorted(begun) == [0, 1, 2, 3]


def test_noise_that_was_taken_over_costs_what_it_cost_the_run_that_made_it(tmp_path: Path) -> None:
    def finished(name: str, lm: str, tune: dict[str, Any], draw: dict[str, Any]) -> None:
        folder = tmp_path / "runs" / f"embedded-hidden-{name}"
        folder.mkdir(parents=True)
        stages = {"tune_noise": tune, "draw_noise": draw, "train": {**made, "cpu_seconds": 50.0}}
        told = {"status": "complete", "stages": stages, "noise_lm": {"digest": lm}, "bank": name}
        (folder / "run.json").write_text(json.dumps(told))
        (folder / "predictions.parquet").write_bytes(b"kept as it is")

    made = {"skipped": False, "seconds": 9.0, "cpu_seconds": 7.04}
    found = {"skipped": True, "seconds": 0.1, "cpu_seconds": 0.1}
    finished("k1-seed1", "a", made, made)
    finished("k2-seed1", "a", found, {**made, "cpu_seconds": 3.0})
    finished("k1-seed2", "b", found, made)
    assert grid(tmp_path, "--only", "hidden", "--status", "--tables", "kept", *SMALL).returncode
    costs = json.loads((tmp_path / "kept" / "costs.json").read_text())
    assert costs == {
        "embedded-hidden-k1-seed1": {"tune_noise": 7.0, "draw_noise": 7.0, "train": 50.0},
        "embedded-hidden-k2-seed1": {"tune_noise": 7.0, "draw_noise": 3.0, "train": 50.0},
        # Made by nobody that is here.
        "embedded-hidden-k1-seed2": {"tune_noise": None, "draw_noise": 7.0, "train": 50.0},
    }


def test_a_grid_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for words, why in (
        (("--status",), "The grid needs size=... on the command line"),
        (("--only", "electra", *SMALL), "--only names electra; there are embedded, none"),
    ):
        done = grid(tmp_path, *words)
        assert done.returncode == 2 and why in done.stderr
    (tmp_path / "other.yaml").write_text("tasks: {}")
    done = subprocess.run(
        [sys.executable, str(GRID), str(tmp_path / "other.yaml"), "runs"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "has no common, methods, per_text, seeds" in done.stderr


def test_killed_runs_are_compared_by_value(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT.parent / "kills.py"))

    def made(name: str, **changed: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        values = {"ece": 0.1, "loss": "0.7", "logit": 1.5} | changed
        (folder / "metrics.json").write_text(json.dumps({"test/cal/ece": values["ece"]}))
        (folder / "history.csv").write_text(f"step,loss/ce\n4,{values['loss']}\n")
        parquet.write_table(pa.table({"logit": [values["logit"]]}), folder / "predictions.parquet")
        return folder

    undisturbed = made("undisturbed")
    differences = script["differences"]
    assert [*differences(made("same"), undisturbed)] == []
    for number, (key, value, file) in enumerate(
        [
            ("ece", 0.1000001, "metrics.json"),
            ("loss", "0.70", "history.csv"),
            ("logit", 1.5000001, "predictions.parquet"),
        ]
    ):
        (found,) = differences(made(str(number), **{key: value}), undisturbed)
        assert found.startswith(f"{file}: 1 of 1 differ")
    gone = made("gone")
    (gone / "metrics.json").unlink()
    assert [*differences(gone, undisturbed)] == ["metrics.json is not there"]


def test_the_settings_of_the_killed_run_are_settings() -> None:
    script = runpy.run_path(str(SCRIPT.parent / "kills.py"))
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=list(script["SETTINGS"]))
    assert config.trainer.accelerator == "cpu"
    assert {*script["NAMES"].values()} == {"loading", *script["STAGES"]} - {"evaluating"}
