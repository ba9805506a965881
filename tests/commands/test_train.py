"""The main job and its stages, typed, stopped and typed again."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from calib_ebm.report.files import read_run

CONTRACT = {
    ".lock",
    "config.yaml",
    "run.json",
    "metrics.json",
    "history.csv",
    "predictions.parquet",
    "energies.parquet",
    "noise_samples.jsonl",
    "truth.parquet",
    "texts.parquet",
    "model",
    "report.html",
}


def too_wide(text: str) -> list[str]:
    """Lines that do not fit a terminal of 80 columns, those with a path aside."""
    return [line for line in text.splitlines() if len(line) > 79 and "/" not in line]


def test_train_ends_with_the_run_folder_and_leaves_the_contract(undisturbed: Any) -> None:
    assert undisturbed.code == 0, undisturbed.err
    folder = undisturbed.last_path
    assert {path.name for path in folder.iterdir()} == CONTRACT | {"tensorboard"}
    assert {path.name for path in undisturbed.folder.iterdir()} == {"runs"}  # nothing beside it
    record = read_run(folder)
    assert record.run.status == "complete"
    typed = shlex.split(record.run.command)
    assert typed[:3] == ["python", "-m", "calib_ebm.train"] and "logger=tensorboard" in typed
    assert f"report: {folder.relative_to(undisturbed.folder)}/report.html" in undisturbed.out


def test_what_is_said_fits_a_terminal_and_nothing_is_complained_of(undisturbed: Any) -> None:
    assert too_wide(undisturbed.out) == []
    assert undisturbed.err == ""
    lines = undisturbed.out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert sum(line.startswith("training: step ") for line in lines) == 10
    assert "training: step 100 of 100, ce " in undisturbed.out


def test_tensorboard_gets_the_curves_and_the_settings(undisturbed: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(undisturbed.last_path / "tensorboard"))
    events.Reload()
    names = {"loss/ce", "loss/nce", "energy/gap", "nce/accuracy", "cls/acc", "val/cal/ece"}
    names |= {"test/cal/ece", "test_calibrated/nll"}  # measured when the training was over
    assert names <= {*events.Tags()["scalars"]}
    steps = [event.step for event in events.Scalars("loss/ce")]
    assert steps == sorted(set(steps)) and steps[-1] == 99
    written = yaml.safe_load((undisturbed.last_path / "tensorboard/hparams.yaml").read_text())
    assert written["noise"]["per_text"] == 1


def test_stopped_in_each_stage_and_typed_again_it_ends_as_if_undisturbed(
    terminal: Any, tiny: tuple[str, ...], undisturbed: Any
) -> None:
    words = (*tiny, "cache_dir=kept", "run_dir=here")
    noise_words = (*tiny, "cache_dir=kept")

    stopped = terminal.type_and_stop(signal.SIGINT, "tuning noise", "tune_noise", *noise_words)
    assert stopped.code == 130
    sentence = stopped.err.splitlines()
    assert len(sentence) == 1, stopped.err
    assert sentence[0].startswith("Stopped at step ") and "of 120. The same" in sentence[0]

    drawn = terminal.type("draw_noise", *noise_words)
    assert drawn.code == 0, drawn.err
    assert "Going on with the tuning" in drawn.out
    banks = [terminal.folder / line for line in drawn.out.splitlines()[-2:]]
    assert all((bank / "manifest.json").is_file() for bank in banks) and banks[0] != banks[1]

    stopped = terminal.type_and_stop(signal.SIGTERM, "training: step", "train", *words)
    assert stopped.code == 130, stopped.err
    assert len(stopped.err.splitlines()) == 1 and "of 100. The same" in stopped.err
    assert "tuning noise" not in stopped.out and "drawing" not in stopped.out
    folder = terminal.folder / "here"
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert not (folder / "metrics.json").exists()

    done = terminal.type("train", *words)
    assert done.code == 0, done.err
    assert "Going on at step " in done.out
    assert done.last_path == folder
    stages = read_run(folder).run.stages
    assert stages["tune_noise"].skipped and stages["draw_noise"].skipped
    assert not stages["train"].skipped
    theirs = undisturbed.last_path
    for name in ("metrics.json", "history.csv", "noise_samples.jsonl"):
        assert (folder / name).read_text() == (theirs / name).read_text(), name

    before = snapshot(folder)
    again = terminal.type("train", *words)
    assert again.code == 0 and again.last_path == folder
    assert "finished already" in again.out and snapshot(folder) == before


def snapshot(folder: Path) -> dict[Path, int]:
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_sweep_makes_a_folder_for_each_and_goes_on_after_a_failure(
    terminal: Any, short: tuple[str, ...]
) -> None:
    terminal.environment |= {"WANDB_MODE": None, "WANDB_SILENT": None, "WANDB_API_KEY": None}
    terminal.environment |= {"NETRC": "nowhere", "HOME": str(terminal.folder / "home")}
    sweep = ("energy=none,hidden", "task.max_length=32,4", "logger=wandb")
    done = terminal.type("train", *short, "-m", *sweep)
    assert done.code == 2, done.err  # two of the four cannot be
    ran = [line for line in done.out.splitlines() if line.startswith("run: ")]
    assert len(ran) == 4 and "run: energy=hidden task.max_length=4" in ran
    assert done.err.count("error: task.max_length is 4.") == 2
    folders = [path for path in (terminal.folder / "runs").iterdir() if path.is_dir()]
    finished = [path for path in folders if (path / "report.html").exists()]
    records = [read_run(folder).run for folder in finished]
    assert {record.energy for record in records} == {"none", "hidden"}
    for record in records:
        # The command of the one run, not of the sweep.
        assert f"energy={record.energy}" in shlex.split(record.command)
        assert "-m" not in shlex.split(record.command)[3:]
    # Without a login W&B is written offline and says so; each run is one of its own.
    assert done.err.count("no login was found") == 2
    offline = [next((folder / "wandb").glob("offline-run-*")) for folder in finished]
    ids = [path.name.rpartition("-")[2] for path in offline]
    assert ids[0] != ids[1]
    assert all(any(path.glob("*.wandb")) for path in offline)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_hydras_launchers_make_the_runs_of_a_sweep(
    launcher: str, terminal: Any, short: tuple[str, ...]
) -> None:
    """In processes of their own; one that fails is said, and does not stop the other."""
    sweep = (f"hydra/launcher={launcher}", "energy=none", "task.max_length=32,4")
    done = terminal.type("train", *short, "-m", *sweep)
    assert done.code == 2, done.err
    runs = terminal.folder / "runs"
    logs = "".join(path.read_text() for path in runs.glob(".submitit/*/*.err"))
    assert "error: task.max_length is 4." in (done.err if launcher == "joblib" else logs)
    assert ("in runs/.submitit" in done.err) == (launcher == "submitit_local")
    assert ("a job of its own" in done.out) == (launcher == "submitit_local")
    (folder,) = [path.parent for path in runs.glob("*/report.html")]
    typed = shlex.split(read_run(folder).run.command)
    assert typed[:3] == ["python", "-m", "calib_ebm.train"] and "task.max_length=32" in typed
