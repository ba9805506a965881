"""What disks and other processes do to a run: found out, said, and never silently used."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.command import guarded
from calib_ebm.draw_noise import draw_noise
from calib_ebm.errors import Interrupted
from calib_ebm.learn.joint import JointModule
from calib_ebm.train import train
from calib_ebm.tune_noise import tune_noise

Settings = Callable[..., dict[str, Any]]
CUT = "last.ckpt is cut short or changed; "


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Do what must be refused; what was said, in one line."""

    def check(work: Callable[[], None]) -> str:
        capsys.readouterr()
        assert guarded(work) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert re.match(r"error: .* allowed: .* to do: ", said)
        return said

    return check


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def the_only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """The training is stopped in this step."""
    original = JointModule.training_step

    def stops(self: JointModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            raise Interrupted("Stopped.")
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointModule, "training_step", stops)
        yield


@pytest.mark.parametrize(
    ("damaged", "said", "goes_on"),
    [
        (("last.ckpt",), CUT + "the training goes on from the one before.", "Going on at step 2"),
        (("last.ckpt", "before.ckpt"), "there is no other, so that the training begins anew.", ""),
        ((), "", "Going on at step 4 of 6."),
    ],
    ids=["one", "both", "none"],
)
def test_a_checkpoint_that_is_cut_short_is_named_and_changes_no_number(
    damaged: tuple[str, ...],
    said: str,
    goes_on: str,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("energy=none", "trainer.checkpoint_every=2")
    undisturbed = settings(*words) | {"run_dir": str(tmp_path / "undisturbed")}
    assert guarded(lambda: train(undisturbed)) == 0
    with stopping_at(5):
        assert guarded(lambda: train(settings(*words))) == 130
    run = tmp_path / "run"
    for name in damaged:
        cut_short(run / "checkpoints" / name)
    capsys.readouterr()
    assert guarded(lambda: train(settings(*words))) == 0
    heard = " ".join(capsys.readouterr().out.split())
    notes = " ".join(json.loads((run / "run.json").read_text()).get("notes", []))
    assert said in heard and said in notes and goes_on in heard
    assert ("ckpt" in heard) == ("ckpt" in notes) == bool(damaged)
    for name in ("metrics.json", "history.csv"):
        assert (run / name).read_text() == (tmp_path / "undisturbed" / name).read_text()


def test_what_is_damaged_in_the_cache_is_refused_by_name_and_made_again_when_removed(
    settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    config, cache = settings(), tmp_path / "cache"
    draw_noise(config)
    weights = the_only(cache, "noise_lm/*/model.safetensors")
    whole = weights.read_bytes()
    flip_a_byte(weights)
    for command in (tune_noise, draw_noise, train):
        said = refused(lambda command=command: command(config))  # type: ignore[misc]
        assert f"The noise model in {weights.parent} is damaged: model.safetensors is" in said
    weights.write_bytes(whole)

    manifests = cache.glob("noise/*/manifest.json")
    bank = next(m for m in manifests if '"split": "train"' in m.read_text()).parent
    shard = bank / "shard-00000.arrow"
    whole = shard.read_bytes()
    for damage in (flip_a_byte, cut_short, Path.unlink):  # the last: a manifest without its data
        damage(shard)
        said = refused(lambda: train(config))
        assert f"The noise bank {bank} is damaged: shard-00000.arrow is missing" in said
        shard.write_bytes(whole)
    assert not (tmp_path / "run" / "metrics.json").exists()
    shutil.rmtree(bank)  # as it is said
    assert guarded(lambda: train(config)) == 0
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("name", ["cache", "run"])
def test_a_file_in_the_place_of_a_folder_is_refused(
    name: str, settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text("no folder")
    said = refused(lambda: train(settings()))
    assert str(tmp_path / name) in said and f"{name}_dir=" in said
    assert (tmp_path / name).read_text() == "no folder"


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_no_room_is_left_it_is_said_and_what_is_there_is_gone_on_with(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Room for more and more of what a run writes, so that each of its files is once too large."""
    undisturbed = settings() | {
        "run_dir": str(tmp_path / "undisturbed"),
        "cache_dir": str(tmp_path / "other"),
    }
    assert guarded(lambda: train(undisturbed)) == 0
    limit, heard = 400, list[str]()
    while True:
        capsys.readouterr()
        with no_file_over(limit):
            code = guarded(lambda: train(settings()))
        if code == 0:
            break
        heard.append(" ".join(capsys.readouterr().err.split()))
        assert code == 2 and "File too large" in heard[-1]
        assert not (tmp_path / "run" / "report.html").exists()
        limit *= 2
    assert "The run folder" in heard[0]
    assert any("last.ckpt.part: File too large" in said for said in heard)
    assert any("A file could not be written" in said for said in heard)
    for name in ("metrics.json", "history.csv", "noise_samples.jsonl"):
        theirs = (tmp_path / "undisturbed" / name).read_text()
        assert (tmp_path / "run" / name).read_text() == theirs
    left = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert not left & {".tmp", ".part"}


def test_of_two_processes_in_one_run_folder_one_does_the_work(
    terminal: Any, short: tuple[str, ...]
) -> None:
    words = (*short, "run_dir=run", "cache_dir=cache")
    processes = [terminal.start("train", *words) for _ in range(2)]
    heard = [process.communicate(timeout=3000) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], heard
    outs = [" ".join(out.split()) for out, _ in heard]
    waited = ["Another process is making run; waiting for it." in out for out in outs]
    assert sorted(waited) == [False, True]
    assert "This run is finished already" in outs[waited.index(True)]
    assert "training: step 6 of 6" in outs[waited.index(False)]
    assert all(out.endswith("run") for out in outs)
