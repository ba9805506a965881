"""What all commands share: settings composed by Hydra, errors as sentences, exit codes.

0  done        2  something a person has to put right        3  training cannot go on
130  stopped by Ctrl-C; the same command goes on             1  a mistake of ours
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calib_ebm.errors import InputError, Interrupted, TrainingFailed
from calib_ebm.ranks import is_first_process
from calib_ebm.usage import WIDTH, Usage

Task = Callable[[dict[str, Any]], None]
GOES_ON = "The same command goes on from here."
NO_ROOM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
    | {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EIO}
)
"""What a system says where there is no room, no right to write, or a file in a folder's place."""
AFTER_THE_FIRST = 10.0
"""Seconds in which a launcher ends the other processes of one that failed."""
BY_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers, whose errors are no `OSError`, say what the system said."""


class JobFailed(RuntimeError):
    """A run of several ended with this exit code, its reason said; the others go on."""


def wrapped(text: str) -> str:
    """A text in 79 columns, what does not fit a line going on further in.

    Words are never cut, a path least of all: one that fits no line stays where it is.

    >>> print(wrapped("A run of " + "very " * 15 + "long words."))
    A run of very very very very very very very very very very very very very very
        very long words.
    """
    lines = []
    for line in text.splitlines():
        words = line.split(" ")
        begin = len(line) - len(line.lstrip())
        indent = " " * max(4, begin + 2)
        current = words.pop(0)
        for word in words:
            fits = len(current) + 1 + len(word) <= WIDTH
            # On a line of its own it would be too long as well.
            never_fits = len(indent) + len(word) > WIDTH and len(current) < WIDTH
            if fits or never_fits:
                current += f" {word}"
            else:
                lines.append(current)
                current = indent + word
        lines.append(current)
    return "\n".join(lines)


def say(line: str) -> None:
    """Words for the person, from the first process only."""
    if is_first_process():
        print(wrapped(line), flush=True)


def say_path(path: Path) -> None:
    """A path on a line of its own, for eyes and scripts."""
    if is_first_process():
        print(path, flush=True)


def complain(text: str) -> None:
    """What is wrong, on stderr.

    What is wrong with a command is wrong in all its processes. The others leave the word to the
    first one, whose end mostly ends them; who is alive after that has something of its own to say.
    """
    if not is_first_process():
        time.sleep(AFTER_THE_FIRST)
        text = f"process {os.environ.get('RANK') or os.environ.get('SLURM_PROCID', '?')}: {text}"
    print(wrapped(text), file=sys.stderr, flush=True)


def run_command(usage: Usage, task: Task) -> None:
    """Compose the settings from the command line and hand them to `task` as plain values.

    Args:
        usage: what --help says, and which file of conf/ holds the settings.
        task: does the work.
    """
    for stream in (sys.stdout, sys.stderr):
        # Texts hold whatever there is; a terminal that cannot show it ends no run.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    if {"-h", "--help"} & {*sys.argv[1:]}:
        try:
            print(usage, flush=True)
        except BrokenPipeError:
            # Whoever reads has read enough, as head does; nor shall Python say so at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    from calib_ebm.settings import compose_and_run

    def once(settings: Callable[[], dict[str, Any]], of_several: str | None) -> None:
        if of_several is not None:
            say(f"run: {of_several}")
        code = guarded(lambda: task(settings()))
        if code == 130 or (code and of_several is None):
            sys.exit(code)
        if code:
            raise JobFailed(code)

    in_jobs = any(word.startswith("hydra/launcher=submitit") for word in sys.argv)
    if in_jobs and {"-m", "--multirun"} & {*sys.argv}:
        say("Each run is a job of its own. This waits for all of them.")
        say(_said_by_jobs())
    try:
        compose_and_run(usage.config, once, usage.lists)
    except InputError as error:
        complain(f"error: {error}")
        sys.exit(2)
    except JobFailed as failed:
        if in_jobs:
            complain(_said_by_jobs())
        sys.exit(failed.args[0])
    except KeyboardInterrupt:
        complain("Stopped before anything began.")
        sys.exit(130)


def _said_by_jobs() -> str:
    asked = [word.partition("=")[2] for word in sys.argv if word.startswith("hydra.sweep.dir=")]
    return f"What each run says is in {(asked or ['runs'])[-1]}/.submitit, a folder each."


def guarded(work: Callable[[], None]) -> int:
    """Do the work; give the exit code, what went wrong being said on stderr."""
    _quieten()
    try:
        work()
    except InputError as error:
        complain(f"error: {error}")
        return 2
    except TrainingFailed as error:
        complain(f"error: {error}")
        return 3
    except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
        # Lightning leaves the process at a Ctrl-C that comes before the first step.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if is_first_process():
            where = "" if isinstance(stop, SystemExit) else str(stop).removesuffix(GOES_ON).strip()
            complain(f"{_below_the_bar()}{where or 'Stopped.'} {GOES_ON}")
        return 130
    except Exception as error:
        if (refused := _of_the_disk(error)) is not None:
            complain(f"error: {_no_room(refused)}")
            return 2
        if type(error).__name__ != "OutOfMemoryError":
            raise
        complain(f"error: {_no_memory(error)}")
        return 3
    return 0


def _of_the_disk(error: Exception) -> OSError | None:
    """What the system said, where it did not let a file be written; None for other errors."""
    if not isinstance(error, OSError) and (found := BY_RUST.search(str(error))):
        error = OSError(int(found[1]), os.strerror(int(found[1])))
    return error if isinstance(error, OSError) and error.errno in NO_ROOM else None


def _quieten() -> None:
    """Reports of each loaded weight and advice to developers are not for the person who waits."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _below_the_bar() -> str:
    """A new line where the terminal has written ^C behind whatever stands there."""
    return "\n" if sys.stderr.isatty() else ""


def _no_room(error: OSError) -> InputError:
    # Where writing fails, and not opening, the system does not say which file it was.
    file = "A file could not be written" if error.filename is None else error.filename
    return InputError(
        f"{file}: {error.strerror}.",
        "files that this user may read, folders that this user may write, a disk with room",
        "Put that right, or choose other places with run_dir=... and cache_dir=...; the same "
        "command goes on from what is there.",
    )


def _no_memory(error: Exception) -> InputError:
    return InputError(
        f"The device has not enough memory: {(str(error).splitlines() or [''])[0]}",
        "batches that fit",
        "Lower optim.batch_size, noise.per_text or task.max_length, or set trainer.graphs=false, "
        "which keeps no memory for steps that are recorded; the last checkpoint is kept.",
    )


def show_report(folder: Path) -> None:
    """Print the table of metrics, where the report is and, last, the path of the run folder."""
    from calib_ebm.report.console import summary_table

    show_tables([summary_table(folder)])
    print(f"report: {folder / 'report.html'}")
    print("run folder:")
    print(folder, flush=True)


def show_tables(tables: Sequence[Any]) -> None:
    """Print rich tables, in 79 columns where there is no terminal."""
    from rich.console import Console

    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDTH)
    for table in tables:
        with console.capture() as drawn:
            console.print(table)
        print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def show_reports(home: Path, folders: Sequence[Path]) -> None:
    """Print the table of metrics of each folder and, last, the folder of all."""
    from calib_ebm.report.console import summary_table

    for folder in folders:
        show_tables([summary_table(folder)])
        print(f"report: {folder / 'report.html'}\n")
    print(home, flush=True)


def show_stress(home: Path, tables: Sequence[Any]) -> None:
    """Print the tables of several sets, where they are written and, last, the folder of all."""
    show_tables(tables)
    print("reports: report.html in each folder; the tables: stress.csv and stress.json, in")
    print(home, flush=True)
