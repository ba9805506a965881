"""One process makes what several ask for, and the others wait for it; or each makes a part.

The locks are the operating system's: a process that is killed lets go of them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(folder: Path, say: Callable[[str], None], inside: bool = False) -> Iterator[None]:
    """Hold the right to make `folder`; wait while another process holds it.

    Args:
        folder: what is made.
        say: takes a line for the person who waits.
        inside: whether the lock's file lies in the folder, which then is made, or beside it.
    """
    lock = folder / ".lock" if inside else folder.with_name(folder.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Not "w", which would make a finished run look changed.
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another process is making {folder}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def together(folder: Path) -> Iterator[None]:
    """Work on `folder` along with others that do so, while nobody is `only_one`; wait until then.

    Args:
        folder: what is made.
    """
    lock = folder.with_name(folder.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Hold a part of the work if nobody else does; whether it is held now.

    Args:
        lock: a file of that part, which is made and stays.
    """
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
