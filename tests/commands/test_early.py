"""What is wrong, or finished already, is said before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HEAVY = {"torch", "transformers", "pytorch_lightning", "torchmetrics", "matplotlib", "datasets"}
SCRIPT = """
import json, runpy, sys
command, *words = json.loads(sys.argv[1])
sys.argv = [command, *words]
code = 0
try:
    runpy.run_module(f"calib_ebm.{command}", run_name="__main__")
except SystemExit as left:
    code = left.code
print(json.dumps([code, sorted(sys.modules)]))
"""


class Typed(NamedTuple):
    """What came of a command."""

    code: int
    said: str
    loaded: set[str]
    """Of the heavy libraries."""


def type_words(folder: Path, command: str, *words: str) -> Typed:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([command, *words])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *out, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    return Typed(code, " ".join(" ".join([*out, done.stderr]).split()), HEAVY & {*modules})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files to be wrong about."""
    rows = [f"words of text {i},{('good', 'bad')[i % 2]}" for i in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "one.csv").write_text("text,label\nwords,good\nmore,good\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "halfway").mkdir()
    (tmp_path / "halfway" / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path


MINE = ("task=csv", "task.train=mine.csv")
WRONG: list[tuple[str, tuple[str, ...], str]] = [
    # Settings: no such choice, no such name, of another kind, not given, out of range.
    ("train", ("energy=nonne",), "There is no energy=nonne."),
    ("tune_noise", ("noise=nose",), "There is no noise=nose."),
    ("draw_noise", ("noise.per_txt=3",), "Did you mean noise.per_text?"),
    ("evaluate", ("calibrator=none", "runn=a"), "There is no setting runn."),
    ("train", ("seed=one",), "seed is 'one'. allowed: a whole number"),
    ("train", ("task=csv",), "No value was given for task.train."),
    ("train", ("task.max_length=4",), "task.max_length is 4."),
    ("train", ("optim.lr=-1",), "optim.lr is -1."),
    ("train", ("trainer.epochs=0",), "trainer.epochs is 0."),
    ("tune_noise", ("noise.mask_rate=1",), "noise.mask_rate is 1"),
    ("draw_noise", ("noise.per_text=0",), "noise.per_text (K) is 0"),
    # Files.
    ("train", ("task=csv", "task.train=nowhere.csv"), "nowhere.csv is not there."),
    ("train", (*MINE, "task.text=review"), "the column 'review' (task.text) is not there."),
    (
        "tune_noise",
        ("task=csv", "task.train=one.csv", "task.dev=mine.csv"),
        "only the label 'good'",
    ),
    ("train", ("task=sst2", "task.data_dir=empty"), "train.tsv"),
    ("train", (*MINE, "noise=half"), "single texts"),
    ("train", ("encoder.name_or_path=./nowhere",), "name_or_path=./nowhere is no folder."),
    ("train", ("encoder.name_or_path=empty",), "empty holds no config.json"),
    ("draw_noise", ("noise.lm=./nowhere",), "noise.lm=./nowhere is no folder."),
    ("evaluate", (), "Neither run nor table is given."),
    ("evaluate", ("run=nowhere",), "run=nowhere is no finished run"),
    ("evaluate", ("run=nowhere/*",), "run=nowhere/* matches nothing"),
    ("evaluate", ("table=nowhere/*",), "table=nowhere/* matches nothing"),
]


@pytest.mark.parametrize(
    ("command", "words", "said"), WRONG, ids=[" ".join((c, *w)) for c, w, _ in WRONG]
)
def test_what_is_wrong_is_said_before_anything_heavy_is_loaded(
    command: str, words: tuple[str, ...], said: str, folder: Path
) -> None:
    typed = type_words(folder, command, *words)
    assert typed.code == 2
    assert said in typed.said
    assert typed.loaded == set()
    assert not (folder / "runs").exists()  # nothing is begun


def test_what_only_a_library_can_tell_is_said_later(folder: Path) -> None:
    """The control: loading is noticed."""
    typed = type_words(folder, "train", "encoder.name_or_path=halfway", "trainer=cpu")
    assert typed.code == 2 and "No tokenizer could be loaded" in typed.said
    assert typed.loaded >= {"torch", "transformers", "pytorch_lightning"}


def finished_run(folder: Path, *words: str) -> Path:
    """The settings and the record of a run that is finished, without its results."""
    run = folder / "run"
    run.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "calib_ebm.train", *words, "--cfg", "job", "--resolve"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    (run / "config.yaml").write_text(done.stdout)
    (run / "run.json").write_text('{"status": "complete", "stages": {}}')
    (run / "report.html").touch()
    return run


def test_a_finished_run_and_one_of_other_settings_are_known_early(folder: Path) -> None:
    words = (*MINE, "run_dir=run")
    run = finished_run(folder, *words)
    script = (
        "import json, sys, yaml\n"
        "from calib_ebm.learn.early import begin\n"
        "config = yaml.safe_load(open('run/config.yaml')) | json.loads(sys.argv[1])\n"
        "try:\n    print(begin(config, print))\n"
        "except ValueError as error:\n    print(error.given)\n"
        "print('torch' in sys.modules)\n"
    )

    def begun(**changed: Any) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(changed)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    said, read, torch = begun()
    assert "finished already" in said and (read, torch) == ("None", "False")
    refused, torch = begun(seed=7)
    assert "holds a run with other settings (seed)" in refused and torch == "False"
    read, torch = begun(overwrite=True)
    assert read.startswith("ReadTask(") and torch == "False"
    (run / "report.html").unlink()
    read, torch = begun()
    assert read.startswith("ReadTask(") and torch == "False"
