"""--help: within a terminal, of the command it is asked of, and at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from calib_ebm.config_path import conf_dir
from calib_ebm.usage import choices, group_choices

COMMANDS = ("train", "evaluate", "predict", "report", "tune_noise", "draw_noise")


def said(command: str) -> tuple[str, set[str]]:
    """What --help says, and the modules that were loaded for it."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        f"runpy.run_module('calib_ebm.{command}', run_name='__main__')\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=conf_dir().parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, {*done.stderr.split()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_narrow_and_names_its_command(command: str) -> None:
    text, loaded = said(command)
    assert [line for line in text.splitlines() if len(line) > 79] == []
    assert text.startswith(f"python -m calib_ebm.{command} ")
    assert f"  python -m calib_ebm.{command} " in text  # an example
    assert "calib_ebm.command" in loaded
    assert not loaded & {"torch", "hydra", "omegaconf", "transformers", "pytorch_lightning"}


def test_help_of_train_lists_every_group_and_its_default_first() -> None:
    groups = {path.parent.name for path in conf_dir().glob("*/*.yaml")}
    shown = choices("train")
    assert {*shown} == groups
    assert shown["energy"].startswith("sharp_hidden, ") and shown["task"].startswith("embedded, ")
    assert shown["debug"].startswith("null, ")
    assert "base" not in group_choices("noise")


def test_help_of_evaluate_is_not_that_of_train() -> None:
    assert {*choices("evaluate")} == {"calibrator"}
    text, _ = said("evaluate")
    assert "the run folder" in text and "overwrite" not in text


def test_help_into_a_pipe_that_closes_is_no_error() -> None:
    command = [sys.executable, "-m", "calib_ebm.train", "--help"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=conf_dir().parent, **pipe) as process:  # type: ignore[call-overload]  # the keys are its own
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
