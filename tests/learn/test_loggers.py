"""Dashboards: which is built, under which names, and that nobody is ever asked for a login."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from calib_ebm.errors import InputError
from calib_ebm.learn.loggers import (
    RunOnWandb,
    build_dashboard,
    finish_dashboard,
    has_wandb_login,
)

RECORD = {"task": {"name": "sst2"}, "energy": {"name": "hidden"}, "seed": 3}
WANDB = {"kind": "wandb", "project": None, "name": None}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody has logged in, and no mode is asked for."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def built(folder: Path, **options: Any) -> RunOnWandb:
    dashboard = build_dashboard(WANDB | options, folder, RECORD)
    assert isinstance(dashboard, RunOnWandb)
    return dashboard


def init_of(dashboard: RunOnWandb) -> dict[str, Any]:
    """What wandb.init will be given."""
    return dashboard._wandb_init


@pytest.mark.parametrize(
    ("netrc", "environment", "there"),
    [
        (None, {}, False),
        ("machine api.wandb.ai\n  login user\n  password abc\n", {}, True),
        ("machine api.example.org\n  login wandb\n  password abc\n", {}, False),
        ("machine w.example.org\n  login user\n  password abc\n", {}, False),
        (
            "machine w.example.org\n  login user\n  password abc\n",
            {"WANDB_BASE_URL": "https://w.example.org"},
            True,
        ),
        ("this is no netrc", {}, False),
        (None, {"WANDB_API_KEY": "abc"}, True),
    ],
)
def test_a_login_is_a_key_for_the_right_machine(
    netrc: str | None,
    environment: dict[str, str],
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert has_wandb_login() == there


@pytest.mark.parametrize(
    ("asked", "key", "offline", "told"),
    [
        (None, None, True, True),
        ("online", None, True, True),
        ("offline", None, True, False),
        ("offline", "abc", True, False),
        (None, "abc", False, False),
        ("disabled", None, False, False),
    ],
)
def test_without_a_login_it_is_offline_and_says_so(
    asked: str | None,
    key: str | None,
    offline: bool,
    told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in (("WANDB_MODE", asked), ("WANDB_API_KEY", key)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert (init_of(built(tmp_path)).get("mode") == "offline") == offline
    assert ("wandb sync" in caplog.text) == told
    assert os.environ.get("WANDB_MODE") == asked  # the next run decides for itself


def test_a_run_has_the_folder_s_name_the_choices_as_tags_and_one_id(tmp_path: Path) -> None:
    one, two = tmp_path / "sst2-hidden-seed3", tmp_path / "other"
    init = init_of(built(one))
    assert (init["project"], init["name"]) == ("calib_ebm", "sst2-hidden-seed3")
    assert (init["group"], init["tags"]) == ("sst2", ["sst2", "hidden"])
    assert init["config"] == RECORD and init["dir"] == str(one.resolve())
    assert init_of(built(one))["id"] == init["id"] != init_of(built(two))["id"]
    mine = init_of(built(one, project="mine", name="first"))
    assert (mine["project"], mine["name"]) == ("mine", "first")


def test_runs_of_one_process_are_runs_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    ids = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        dashboard = built(tmp_path / name)
        dashboard.log_metrics({"loss/ce": 0.5}, step=1)
        ids.append(dashboard.experiment.id)
        dashboard.finalize("success")
        dashboard.finalize("success")  # Lightning may say it twice
        # What is measured after the training belongs to the same run.
        assert dashboard.experiment.id == ids[-1]
        finish_dashboard(dashboard, {"test/cal/ece": 0.25, "test/cal/ece/low": 0.125})
        (run,) = (tmp_path / name / "wandb").glob("offline-run-*")
        assert run.name.endswith(ids[-1])
        (file,) = run.glob("*.wandb")
        # W&B's own process may write it a moment later.
        for _ in range(100):
            if b"0.125" in file.read_bytes():
                break
            time.sleep(0.1)
        assert b"test/cal/ece" in file.read_bytes() and b"0.125" in file.read_bytes()
    assert ids[0] != ids[1]


def test_a_training_that_failed_ends_its_run_at_once(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    dashboard = built(tmp_path)
    dashboard.log_metrics({"loss/ce": 0.5}, step=1)
    dashboard.finalize("failed")
    assert dashboard._experiment is None


def test_a_dashboard_that_was_never_used_ends_without_beginning(tmp_path: Path) -> None:
    built(tmp_path).finalize("failed")
    assert [*(tmp_path / "wandb").glob("offline-run-*")] == []


def test_tensorboard_keeps_the_settings_beside_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = build_dashboard({"kind": "tensorboard"}, tmp_path, RECORD)
    assert board is not None
    board.log_metrics({"loss/ce": 0.5}, step=1)
    board.save()
    files = {path.name.split(".")[0] for path in (tmp_path / "tensorboard").iterdir()}
    assert files == {"events", "hparams"}
    assert yaml.safe_load((tmp_path / "tensorboard" / "hparams.yaml").read_text()) == RECORD
    finish_dashboard(board, {"test/cal/ece": 0.25, "test/cal/ece/low": 0.125})
    written = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").glob("events*"))
    assert b"test/cal/ece" in written and b"test/cal/ece/low" not in written


def test_csv_is_written_anyway_and_needs_no_dashboard(tmp_path: Path) -> None:
    assert build_dashboard({"kind": "csv"}, tmp_path, RECORD) is None
    assert [*tmp_path.iterdir()] == []


def test_an_unknown_kind_and_a_missing_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"logger\.kind is 'paper'"):
        build_dashboard({"kind": "paper"}, tmp_path, RECORD)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'calib-ebm\[wandb\]'"):
        build_dashboard(WANDB, tmp_path, RECORD)
