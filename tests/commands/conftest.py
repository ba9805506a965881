"""Commands as a person types them, in a process and a folder of their own.

A process costs seconds of imports, so that few are started: one undisturbed run is shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from calib_ebm.config_path import conf_dir
from calib_ebm.settings import plain, register_resolvers

ROOT = Path(__file__).parent.parent.parent
EMBEDDED = ("task.train_size=96", "task.dev_size=61")
# Steps enough that a signal sent at the first line of progress comes before the last one.
TINY = (
    *EMBEDDED,
    "encoder.small.layers=1",
    "encoder.small.width=16",
    "encoder.small.heads=2",
    "noise.small.layers=1",
    "noise.small.width=16",
    "noise.small.heads=2",
    "noise.tune.batch_size=8",
    "noise.tune.epochs=10",
    "noise.tune.max_steps=120",
    "trainer=cpu",
    "trainer.max_steps=100",
    "trainer.measurements=2",
    "trainer.log_every=5",
    "optim.batch_size=16",
)
SHORT = ("noise.tune.max_steps=4", "trainer.max_steps=6")
"""On top of TINY, where the number of steps does not matter."""


@dataclass
class Terminal:
    """A folder to type commands in.

    Attributes:
        folder: where the commands run; there is no terminal and nobody answers questions.
        environment: what differs from the tests' own; None takes a variable away.
    """

    folder: Path
    environment: dict[str, str | None] = field(default_factory=dict)

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        """Begin `python -m calib_ebm.<command>`."""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        # Of a test in this process that has used W&B: not what a person has.
        variables: dict[str, str | None] = {**os.environ, "WANDB_SERVICE": None}
        variables |= {"PYTHONPATH": path, **self.environment}
        return subprocess.Popen(
            [sys.executable, "-m", f"calib_ebm.{command}", *words],
            cwd=self.folder,
            env={name: value for name, value in variables.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, command: str, *words: str) -> Done:
        """Run it to its end."""
        process = self.start(command, *words)
        out, err = process.communicate(timeout=3000)
        return Done(process.returncode, out, err, self.folder)

    def type_and_stop(self, number: int, at: str, command: str, *words: str) -> Done:
        """Run it and send a signal when a line of progress begins with `at`."""
        process = self.start(command, *words)
        assert process.stdout is not None
        heard = []
        for line in process.stdout:
            heard.append(line)
            if line.startswith(at):
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=3000)
        return Done(process.returncode, "".join(heard) + out, err, self.folder)


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def last_path(self) -> Path:
        """The last line, which names a folder."""
        path = self.folder / self.out.splitlines()[-1]
        assert path.is_dir(), self.out + self.err
        return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A finished run of `train`."""
    terminal = Terminal(tmp_path_factory.mktemp("undisturbed"))
    return terminal.type("train", *TINY, "logger=tensorboard")


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """The settings of `undisturbed`."""
    return TINY


@pytest.fixture
def short() -> tuple[str, ...]:
    """A few steps of everything."""
    return (*TINY, *SHORT)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What a command would be given, for tests within this process."""
    register_resolvers()

    def build(*words: str, of: str = "train") -> dict[str, Any]:
        shrunk: tuple[str, ...] = ()
        if of == "train":
            folders = (f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}")
            shrunk = (*TINY, *SHORT, *folders)
            if any(word.startswith("task=") for word in words):
                shrunk = tuple(word for word in shrunk if word not in EMBEDDED)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return plain(compose(of, overrides=[*shrunk, *words]))

    return build
