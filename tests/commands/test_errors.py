"""What a person can get wrong: exit code 2, and what was given, what is allowed, what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from calib_ebm.command import AFTER_THE_FIRST, complain, guarded, wrapped
from calib_ebm.draw_noise import draw_noise
from calib_ebm.errors import InputError, Interrupted
from calib_ebm.learn.joint import JointModule
from calib_ebm.settings import _no_such_choice
from calib_ebm.train import train
from calib_ebm.tune_noise import tune_noise

Settings = Callable[..., dict[str, Any]]
Made = tuple[Path, tuple[str, ...]]
SMALL = ("encoder.name_or_path=small", "noise.lm=small", "task.max_length=16")
ROWS = [(f"words of text {i}", ("good", "bad")[i % 2]) for i in range(40)]


PARTS = ["error", "  allowed", "  to do"]


def parts(said: str) -> list[str]:
    """What the lines begin with, those aside that go on from the line before."""
    return [line.split(":")[0] for line in said.splitlines() if not line.startswith("    ")]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Do what must be refused; what was said, in one line."""

    def check(work: Callable[[], None]) -> str:
        assert guarded(work) == 2
        said = capsys.readouterr().err
        assert [line for line in said.splitlines() if len(line) > 79 and "/" not in line] == []
        assert parts(said) == PARTS, said
        return " ".join(said.split())

    return check


# ----------------------------------------------------------------------------------- one's own data


def csv_file(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text(header + "\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


def no_column(folder: Path) -> Made:
    return csv_file(folder / "a.csv", ROWS), ("task.text=review",)


def unknown_label(folder: Path) -> Made:
    dev = csv_file(folder / "dev.csv", [*ROWS[:6], ("more words", "ugly")])
    return csv_file(folder / "a.csv", ROWS), (f"task.dev={dev}",)


def one_class(folder: Path) -> Made:
    rows = [(text, "good") for text, _ in ROWS]
    return csv_file(folder / "a.csv", rows), ("task.labels=[good,bad]",)


def one_class_in_dev(folder: Path) -> Made:
    dev = csv_file(folder / "dev.csv", [(text, "good") for text, _ in ROWS])
    return csv_file(folder / "a.csv", ROWS), (f"task.dev={dev}",)


def one_dev_text(folder: Path) -> Made:
    return csv_file(folder / "a.csv", ROWS), (f"task.dev={csv_file(folder / 'd.csv', ROWS[:1])}",)


def not_utf8(folder: Path) -> Made:
    path = csv_file(folder / "a.csv", ROWS)
    path.write_bytes(path.read_bytes().replace(b"of text 7,", b"caf\xe9,"))
    return path, ()


def no_file(folder: Path) -> Made:
    return folder / "absent.csv", ()


def only_a_header(folder: Path) -> Made:
    return csv_file(folder / "a.csv", []), ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_column, "the column 'review' (task.text) is not there. allowed: one of the file's"),
        (unknown_label, "'ugly'"),
        (one_class, "train has only the label 'good'"),
        (one_class_in_dev, "dev has only the label 'good'"),
        (one_dev_text, "The dev set has 1 examples. allowed: at least 2"),
        (not_utf8, "a.csv, line 9: byte 10 of the line (0xe9) is not UTF-8"),
        (no_file, "absent.csv is not there"),
        (only_a_header, "holds no rows"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_of_ones_own(
    make: Callable[[Path], Made],
    said: str,
    settings: Settings,
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    path, words = make(tmp_path)
    config = settings("task=csv", f"task.train={path}", *SMALL, *words)
    assert said in refused(lambda: train(config))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_empty_texts_are_dropped_and_long_ones_cut_counted_and_said(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, ("", "good"), ("long " * 40, "bad")]
    path = csv_file(tmp_path / "mine.csv", rows)
    config = settings("task=csv", f"task.train={path}", *SMALL, "energy=none")
    assert guarded(lambda: train(config)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 row(s) of" in said and "have an empty text and were dropped" in said
    assert "1 of " in said and "were longer than 16 tokens and were cut" in said
    notes = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert any("empty text" in note for note in notes) and any("cut" in note for note in notes)


# ------------------------------------------------------------------- GLUE, the Hub and the settings


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "train.tsv"),
        ({"train.tsv": "review\tstars\nfine\t1\n", "dev.tsv": "review\tstars\n"}, "review"),
    ],
    ids=["no_files", "another_header"],
)
def test_a_glue_folder(
    files: dict[str, str],
    said: str,
    settings: Settings,
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    config = settings("task=sst2", f"task.data_dir={tmp_path}", *SMALL)
    assert said in refused(lambda: train(config))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task=sst2",), "Set task.data_dir= to the classic GLUE download's folder SST-2"),
        (("encoder.name_or_path=roberta-base",), "encoder.name_or_path=small"),
        (("noise.lm=gpt2",), "noise.lm=small"),
        (("task=stsb",), "regression"),
        (("noise.per_text=0",), "noise.per_text (K) is 0"),
        (("noise.mask_rate=1",), "noise.mask_rate is 1"),
        (("noise.mask_rate=0",), "noise.mask_rate is 0"),
        (("noise=half",), "single texts"),
        (("noise.bank_size=3",), "noise texts"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_had_or_cannot_be(
    words: tuple[str, ...], said: str, settings: Settings, refused: Callable[..., str]
) -> None:
    assert said in refused(lambda: train(settings(*words)))


BAD_WORDS = {
    "energy=nonne": "There is no energy=nonne. allowed: hidden, ",
    "experiment=mine": "There is no experiment=mine.",
    "noise=base": "There is no noise=base.",
    "trainer.max_step=3": "Did you mean trainer.max_steps?",
    "lr=3": "Did you mean optim.lr?",
    "nosuch=3": "There is no setting nosuch. allowed: task, encoder, ",
    "seed=one": "seed is 'one'. allowed: a whole number",
    "seed=null": "seed is None.",
    "loss.nce_weight=null": "loss.nce_weight is None. allowed: a number",
    "noise.share=null": "noise.share is None. allowed: a number",
    "optim.batch_size=3.5": "optim.batch_size is 3.5.",
    "noise.temperature=hot": "noise.temperature is 'hot'. allowed: a number",
    "overwrite=1": "overwrite is 1. allowed: true or false",
    "noise.lm=${nowhere}": "cannot be resolved",
    "task=csv": "No value was given for task.train. allowed: a value for each to do: Add task.tr",
    "sst2": "'sst2' cannot be read as a setting.",
    "task.text=[": "'task.text=[' cannot be read as a setting.",
    "+energy=none": "cannot be composed",
    "hydra/launcher=jobib": "There is no hydra/launcher=jobib. allowed: basic, joblib, submitit_l",
}


def test_a_process_of_several_says_which_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("calib_ebm.command.time.sleep", waited.append)
    complain("error: no room")
    monkeypatch.setenv("RANK", "1")
    complain("error: no room")
    assert capsys.readouterr().err == "error: no room\nprocess 1: error: no room\n"
    assert waited == [AFTER_THE_FIRST]


def test_a_launcher_that_is_not_installed_is_named_with_its_extra() -> None:
    """Here all of them are installed: what Hydra would say of one is handed over."""
    said = " ".join(str(_no_such_choice("hydra/launcher/submitit_slurm")).split())
    assert "hydra/launcher=submitit_slurm is not installed." in said
    assert "pip install 'calib-ebm[slurm]'" in said


def test_what_is_typed_wrongly(tmp_path: Path) -> None:
    """All in one process: it is the imports that cost time, and Hydra takes hold of a process."""
    script = (
        "import sys, json, io, contextlib\n"
        "from calib_ebm.command import run_command\n"
        "from calib_ebm.usage import Usage\n"
        "answers = {}\n"
        "for word in json.loads(sys.argv[1]):\n"
        "    sys.argv, heard = ['train', word], io.StringIO()\n"
        "    with contextlib.redirect_stderr(heard):\n"
        "        try:\n"
        "            run_command(Usage('train', 'train', '', {}), lambda settings: None)\n"
        "        except SystemExit as left:\n"
        "            answers[word] = [left.code, heard.getvalue()]\n"
        "print(json.dumps(answers))\n"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([*BAD_WORDS, "seed=3", "trainer.devices=auto"])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ["PYTHONPATH"]])},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert answers.keys() == BAD_WORDS.keys()  # the last two are right, and no exit is forced
    for word, said in BAD_WORDS.items():
        code, heard = answers[word]
        assert code == 2, word
        assert said in " ".join(heard.split()), word
        assert parts(heard) == PARTS, heard


# ------------------------------------------------------------------------------ the disk, the noise


def test_a_run_folder_that_cannot_be(
    settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    config = settings(f"run_dir={tmp_path / 'file' / 'run'}")
    assert "Give another with run_dir=" in refused(lambda: train(config))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_a_sentence_anywhere(
    number: int, refused: Callable[..., str], tmp_path: Path
) -> None:
    def work() -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "history.csv"))

    said = refused(work)
    assert f"history.csv: {os.strerror(number)}." in said and "run_dir=" in said


def test_a_mistake_of_ours_is_not_taken_for_the_person_s() -> None:
    def work() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    with pytest.raises(FileNotFoundError):
        guarded(work)


def test_a_disk_that_is_full_while_the_bank_is_written_leaves_no_half_bank(
    settings: Settings,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings()
    tune_noise(config)
    with monkeypatch.context() as full:

        def fsync(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr("calib_ebm.durable.os.fsync", fsync)
        assert "The disk is full: the noise bank" in refused(lambda: draw_noise(config))
    assert [*(tmp_path / "cache" / "noise").glob("*/manifest.json")] == []
    draw_noise(config)
    assert len(train_banks(tmp_path)) == 1


def test_a_bank_of_another_task_in_its_place_is_refused(
    settings: Settings, refused: Callable[..., str], tmp_path: Path
) -> None:
    config = settings()
    draw_noise(config)
    (ours,) = train_banks(tmp_path)
    draw_noise(settings("task.language_seed=1"))
    (theirs,) = train_banks(tmp_path) - {ours}
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    said = refused(lambda: train(config))
    assert str(ours) in said and "was drawn for task" in said


def train_banks(folder: Path) -> set[Path]:
    manifests = [*(folder / "cache" / "noise").glob("*/manifest.json")]
    assert manifests
    plans = {path.parent: json.loads(path.read_text())["plan"] for path in manifests}
    return {bank for bank, plan in plans.items() if plan["split"] == "train"}


# ---------------------------------------------------------------------- what stops a training, said


def test_a_non_finite_loss_ends_with_3_and_keeps_the_checkpoint(
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings("energy=none", "trainer.checkpoint_every=2")
    original = JointModule.training_step

    def poisoned(self: JointModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 3:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(JointModule, "training_step", poisoned)
        assert guarded(lambda: train(config)) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: The loss is nan at step 3") and "optim.lr" in said
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert guarded(lambda: train(config)) == 0


@pytest.mark.parametrize(
    "raised",
    [
        Interrupted("Stopped at step 3 of 9."),
        Interrupted("Stopped at step 3 of 9. The same command goes on from here."),
        KeyboardInterrupt(),
        InterruptedError,
    ],
    ids=["of_a_stage", "of_a_run", "anywhere", "within_lightning"],
)
def test_ctrl_c_is_one_sentence(raised: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        if raised is not InterruptedError:
            raise raised
        try:  # as Lightning does before the first step
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert guarded(work) == 130
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("Stopped") and said.count("The same command goes on from here.") == 1


def test_leaving_for_another_reason_is_left_alone() -> None:
    with pytest.raises(SystemExit):
        guarded(lambda: sys.exit(7))


def test_too_little_memory_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nMore words")

    assert guarded(work) == 3
    said = capsys.readouterr().err
    assert "Lower optim.batch_size" in said and "More words" not in said


def test_long_lines_are_broken_at_blanks_and_paths_are_not() -> None:
    path = "/a/very/long" * 10
    text = str(InputError(f"{path} is not there; " + "words " * 30, "files", "Correct it."))
    lines = wrapped(text).splitlines()
    assert path in lines[0] or path in lines[1]
    assert all(len(line) <= 79 or path in line for line in lines)
    assert " ".join(wrapped(text).split()) == " ".join(text.split())
