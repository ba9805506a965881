"""The run's folder: found again by the same settings, refused to others, cleared with care."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.errors import InputError
from calib_ebm.learn.folder import (
    is_complete,
    open_run,
    read_config,
    run_folder,
    settings_digest,
)

CONFIG: dict[str, Any] = {
    "task": {"name": "sst2", "recipe": {"lr": 2e-5}},
    "energy": {"name": "hidden"},
    "noise": {"name": "masked"},
    "loss": {"name": "cross_entropy"},
    "logger": {"kind": "csv"},
    "seed": 3,
    "run_dir": None,
    "cache_dir": "cache",
    "overwrite": False,
}


def test_the_name_tells_what_it_is_and_changes_with_what_changes_numbers() -> None:
    name = run_folder(CONFIG).name
    assert name == f"sst2-hidden-masked-seed3-{settings_digest(CONFIG)}"
    plain = CONFIG | {"energy": {"name": "none"}}
    assert run_folder(plain).name.startswith("sst2-none-seed3-")
    focal = run_folder(CONFIG | {"loss": {"name": "focal"}}).name
    assert focal.startswith("sst2-hidden-masked-focal-seed3-")
    places = {"logger": {"kind": "wandb"}, "cache_dir": "elsewhere", "overwrite": True}
    assert run_folder(CONFIG | places) == run_folder(CONFIG)
    other = CONFIG | {"task": {"name": "sst2", "recipe": {"lr": 3e-5}}}
    assert run_folder(other) != run_folder(CONFIG)


def test_a_folder_that_is_given_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run_folder(CONFIG | {"run_dir": "mine/run"}) == Path("mine/run")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder(CONFIG | {"run_dir": "~/run"}) == tmp_path / "run"


def test_the_same_settings_go_on_and_others_are_told_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    open_run(CONFIG, folder)
    assert read_config(folder / "config.yaml") == CONFIG
    before = (folder / "config.yaml").stat().st_mtime_ns
    open_run(CONFIG | {"cache_dir": "elsewhere"}, folder)
    assert (folder / "config.yaml").stat().st_mtime_ns == before
    other = CONFIG | {"seed": 4, "task": {"name": "sst2", "recipe": {"lr": 1e-5}}}
    with pytest.raises(InputError, match=r"other settings \(seed, task.recipe.lr\)"):
        open_run(other, folder)


def test_a_run_goes_on_elsewhere_than_it_began(tmp_path: Path) -> None:
    ddp = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "precision": "32-true"}
    open_run(CONFIG | {"trainer": ddp}, tmp_path)
    alone = ddp | {"devices": 1, "strategy": "auto"}
    open_run(CONFIG | {"trainer": alone}, tmp_path)
    # The very command finds it, without naming the folder.
    assert run_folder(CONFIG | {"trainer": alone}) == run_folder(CONFIG | {"trainer": ddp})
    assert run_folder(CONFIG | {"trainer": ddp | {"precision": "bf16-mixed"}}) != run_folder(
        CONFIG | {"trainer": ddp}
    )
    assert read_config(tmp_path / "config.yaml")["trainer"] == ddp
    with pytest.raises(InputError, match=r"other settings \(trainer.precision\)"):
        open_run(CONFIG | {"trainer": ddp | {"precision": "bf16-mixed"}}, tmp_path)


def test_overwriting_removes_what_runs_write_and_nothing_else(tmp_path: Path) -> None:
    open_run(CONFIG, tmp_path)
    for name in ("model", "wandb", "tensorboard", "evaluations", "checkpoints", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "metrics.json").touch()
    (tmp_path / "mine.txt").touch()
    open_run(CONFIG | {"seed": 4, "overwrite": True}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "mine", "mine.txt"}
    assert read_config(tmp_path / "config.yaml")["seed"] == 4


@pytest.mark.parametrize("config", [None, "name: my project\n"])
def test_overwriting_spares_a_folder_that_is_no_run_s(config: str | None, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").touch()
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(InputError, match="model, but no run"):
        open_run(CONFIG | {"overwrite": True}, tmp_path)
    assert (tmp_path / "model" / "precious").exists()
    open_run(CONFIG | {"overwrite": True}, tmp_path / "empty")  # the control


@pytest.mark.parametrize(
    "text", ["task: [\n", "words\n", "task: !!python/object/apply:os.getcwd []\n", "\x00"]
)
def test_settings_that_are_no_plain_yaml_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="cannot be read as a run's settings"):
        open_run(CONFIG, tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="cannot be written") as refused:
            open_run(CONFIG, folder)
        assert "run_dir=" in refused.value.to_do


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="Permission denied"):
        open_run(CONFIG, tmp_path / "run")


def test_a_run_is_complete_when_it_says_so_and_has_its_page(tmp_path: Path) -> None:
    assert not is_complete(tmp_path)
    (tmp_path / "run.json").write_text("{")
    assert not is_complete(tmp_path)
    for status, page, complete in (
        ("running", True, False),
        ("complete", False, False),
        ("complete", True, True),
    ):
        (tmp_path / "run.json").write_text(json.dumps({"status": status}))
        (tmp_path / "report.html").unlink(missing_ok=True)
        if page:
            (tmp_path / "report.html").touch()
        assert is_complete(tmp_path) == complete
