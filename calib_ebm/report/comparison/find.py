"""Run folders and tables from paths and patterns, and why some of them are left out."""

from __future__ import annotations

from dataclasses import dataclass
from glob import glob
from pathlib import Path

from calib_ebm.errors import InputError
from calib_ebm.report.comparison.stored import TableSettings, read_stored
from calib_ebm.report.files import CONFIG, RUN, RunFolder, read_run
from calib_ebm.report.reader import ENDINGS

ANYWHERE = "**"
MANIFEST = "comparison.json"
"""What a comparison was made of, and which tables of figures it wrote."""
TABLES = "tables"
EVALUATION = "evaluation"
"""The entry of config.yaml that tells an evaluation from a run."""


@dataclass(frozen=True)
class LeftOut:
    """A folder or table that is not on the page, and why, in a sentence."""

    folder: Path
    why: str


@dataclass(frozen=True)
class Found:
    """The runs and tables that can be compared, and what cannot."""

    runs: tuple[RunFolder, ...]
    left_out: tuple[LeftOut, ...]


def split_patterns(given: str) -> tuple[str, ...]:
    """The paths and patterns of a comma list.

    >>> split_patterns("runs/a, runs/b*,")
    ('runs/a', 'runs/b*')
    """
    return tuple(part.strip() for part in given.split(",") if part.strip())


def paths_of(patterns: tuple[str, ...]) -> tuple[Path, ...]:
    """The run folders and tables that paths and patterns name, each once, ordered by name.

    A folder that is no run itself stands for the runs in it; one that holds no runs, for the
    tables in it and in the folders directly within.

    Raises:
        InputError: nothing was given, or a pattern names nothing.
    """
    if not patterns:
        raise InputError(
            "runs= names no folder.", "paths or patterns, with commas", "Give runs='runs/*'."
        )
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = _matching(pattern)
        if not paths:
            raise InputError(
                f"{pattern} names no run folder and no table.",
                f"a run folder, a table ({', '.join(ENDINGS)}), a folder of either, or a pattern "
                "in quotes, e.g. 'runs/sst2-*'",
                "Look at the spelling; paths begin at the folder this command is typed in.",
            )
        found |= dict.fromkeys(paths)
    return tuple(sorted(found))


def _matching(pattern: str) -> list[Path]:
    whole = Path(pattern).expanduser()
    if whole.is_dir():
        return [whole] if _is_run(whole) else _runs_in(whole) or _tables_in(whole)
    if whole.is_file():
        return [whole] if _is_table(whole) else []
    # Not Path.glob, which takes no pattern that begins at the root.
    paths = [Path(one) for one in glob(str(whole), recursive=True)]  # noqa: PTH207
    if ANYWHERE in pattern:
        # Below a run lie its model and its evaluations, which a pattern of all depths matches too.
        return [one for one in paths if _is_run(one) or (_is_table(one) and not _owner(one))]
    found = []
    for one in paths:
        if one.is_dir() and not _is_run(one):
            found += _tables_in(one) or [one]
        elif one.is_dir() or _is_table(one):
            found.append(one)
    return found


def _runs_in(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if _is_run(one)]


def _tables_in(folder: Path) -> list[Path]:
    """The tables of a folder and of those directly within, unless there are runs."""
    if _runs_in(folder):
        return []
    within = [one for one in folder.iterdir() if one.is_dir() and not _is_hidden(one)]
    every = [one for place in (folder, *within) for one in place.iterdir()]
    return [one for one in every if _is_table(one) and not _owner(one)]


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in ENDINGS and not _is_hidden(path)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _owner(path: Path) -> Path | None:
    """The run or the comparison that a file belongs to, if there is one."""
    home = path.parent.parent
    if path.parent.name == TABLES and (home / MANIFEST).is_file():
        return home
    runs = (one for one in path.parents if (one / CONFIG).is_file() and (one / RUN).is_file())
    return next(runs, None)


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / RUN).is_file()


def read_all(paths: tuple[Path, ...], settings: TableSettings | None = None) -> Found:
    """Read every path; one that cannot be used is left out and named, and stops nothing.

    Args:
        paths: of run folders and tables.
        settings: how tables are to be read.
    """
    runs, left_out = [], []
    for path in paths:
        try:
            if path.is_file():
                runs.append(_table(path, settings or TableSettings()))
            else:
                runs.append(_usable(read_run(path)))
        except InputError as error:
            why = error.given.removeprefix(f"{path}:").removeprefix(f"{path} ").strip()
            # What helps with a table is on this command's line; with a run it is another command.
            left_out.append(LeftOut(path, f"{why} {error.to_do}" if path.is_file() else why))
        except (OSError, ValueError, TypeError, KeyError) as error:
            # A stranger's folder may be wrong in ways that nobody thought of.
            left_out.append(LeftOut(path, f"It cannot be read ({type(error).__name__})."))
    return Found(tuple(runs), tuple(left_out))


def _table(path: Path, settings: TableSettings) -> RunFolder:
    if (owner := _owner(path)) is not None:
        raise InputError(
            f"{path} is a file of {owner}, and no table of its own.",
            "a table that is part of no run and of no comparison",
            "Give the run's folder instead, if it is one.",
        )
    return read_stored(path, settings)


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
