"""Run folders from paths and patterns, and why some of them are left out."""

from __future__ import annotations

from dataclasses import dataclass
from glob import glob
from pathlib import Path

from calib_ebm.errors import InputError
from calib_ebm.report.files import CONFIG, RUN, RunFolder, read_run

ANYWHERE = "**"
EVALUATION = "evaluation"
"""The entry of config.yaml that tells an evaluation from a run."""


@dataclass(frozen=True)
class LeftOut:
    """A folder that is not on the page, and why, in a sentence."""

    folder: Path
    why: str


@dataclass(frozen=True)
class Found:
    """The runs that can be compared, and the folders that cannot."""

    runs: tuple[RunFolder, ...]
    left_out: tuple[LeftOut, ...]


def split_patterns(given: str) -> tuple[str, ...]:
    """The paths and patterns of a comma list.

    >>> split_patterns("runs/a, runs/b*,")
    ('runs/a', 'runs/b*')
    """
    return tuple(part.strip() for part in given.split(",") if part.strip())


def folders_of(patterns: tuple[str, ...]) -> tuple[Path, ...]:
    """The folders that paths and patterns name, each once, in the order of their names.

    A folder that is no run itself stands for the runs in it.

    Raises:
        InputError: nothing was given, or a pattern names no folder.
    """
    if not patterns:
        raise InputError(
            "runs= names no folder.", "paths or patterns, with commas", "Give runs='runs/*'."
        )
    found: dict[Path, None] = {}
    for pattern in patterns:
        folders = _matching(pattern)
        if not folders:
            raise InputError(
                f"{pattern} names no run folder.",
                "a run folder, a folder of such, or a pattern in quotes, e.g. 'runs/sst2-*'",
                "Look at the spelling; paths begin at the folder this command is typed in.",
            )
        found |= dict.fromkeys(folders)
    return tuple(sorted(found))


def _matching(pattern: str) -> list[Path]:
    whole = Path(pattern).expanduser()
    if whole.is_dir():
        return [whole] if _is_run(whole) else [one for one in whole.iterdir() if _is_run(one)]
    # Not Path.glob, which takes no pattern that begins at the root.
    folders = [Path(one) for one in glob(str(whole), recursive=True) if Path(one).is_dir()]  # noqa: PTH207
    # Below a run lie its model and its evaluations, which a pattern of all depths matches too.
    return [one for one in folders if _is_run(one)] if ANYWHERE in pattern else folders


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / RUN).is_file()


def read_all(folders: tuple[Path, ...]) -> Found:
    """Read every folder; one that cannot be used is left out and named, and stops nothing."""
    runs, left_out = [], []
    for folder in folders:
        try:
            runs.append(_usable(read_run(folder)))
        except InputError as error:
            left_out.append(LeftOut(folder, error.given.removeprefix(f"{folder} ")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            # A stranger's folder may be wrong in ways that nobody thought of.
            left_out.append(LeftOut(folder, f"It cannot be read ({type(error).__name__})."))
    return Found(tuple(runs), tuple(left_out))


def _usable(run: RunFolder) -> RunFolder:
    """The run, if it can stand beside others.

    Raises:
        InputError: it is an evaluation, has not finished, or has no texts to report on.
    """
    if EVALUATION in run.config:
        raise _not_usable(f"{run.path} is an evaluation of a run, and no run.")
    if run.run.status != "complete":
        raise _not_usable(f"Its run has not finished (status {run.run.status or 'unknown'}).")
    if not run.predictions.of("test").ids:
        raise _not_usable("It has no predictions of the test half.")
    if not run.predictions.labelled:
        raise _not_usable("Its reported texts have no labels.")
    return run


def _not_usable(given: str) -> InputError:
    return InputError(given, "the folder of a finished run", "Leave it out, or finish it.")
