"""Several processes that share work by files: which one this is, and how one starts the others.

They need nothing from one another but what lies on the disk, so torchrun, srun and a command that
starts its own copies are all the same here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

from calib_ebm.errors import InputError

STARTED = "CALIB_EBM_STARTED_BY"
"""In the environment of a copy: the process that started it, without which it has no purpose."""


class Place(NamedTuple):
    """Which process this is."""

    rank: int
    world: int
    local: int
    """Its number on this machine, by which it takes a device."""


def place_of(environment: Mapping[str, str]) -> Place:
    """As torchrun, or srun, says it; one alone where neither does.

    >>> place_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}), place_of({})
    (Place(rank=3, world=4, local=1), Place(rank=0, world=1, local=0))
    """
    # SLURM_STEP_NUM_TASKS and not SLURM_NTASKS, which a batch script has before any srun.
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if rank in environment and world in environment:
            return Place(
                int(environment[rank]), int(environment[world]), int(environment.get(local, "0"))
            )
    return Place(0, 1, 0)


class Copies:
    """Copies of this very command, which do a share each; those that are left are ended.

    Args:
        count: processes on this machine, this one included.
        module: the command, as `python -m` takes it.
        first: rank of this process; the copies have the next ones.
        told: further words for their environment.
    """

    def __init__(
        self,
        count: int,
        module: str = "calib_ebm.predict",
        first: int = 0,
        told: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        self.running = {
            first + local: subprocess.Popen(  # noqa: S603  (what the person typed, no shell)
                command,
                env={
                    **os.environ,
                    STARTED: str(os.getpid()),
                    "WORLD_SIZE": str(count),
                    **(told or {}),
                    "RANK": str(first + local),
                    "LOCAL_RANK": str(local),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            for local in range(1, count)
        }
        self.count = count

    def dead(self) -> str:
        """Which one ended before its share was done, and how; empty where none has."""
        for rank, copy in self.running.items():
            if code := copy.poll():
                how = (
                    f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                )
                first = min(self.running) - 1
                return f"Process {rank} of {first} to {first + self.count - 1} {how}."
        return ""

    def check(self) -> bool:
        """Whether any is still at work.

        Raises:
            InputError: when one ended before its share was done.
        """
        if dead := self.dead():
            raise InputError(
                dead,
                "processes that come to their end, with memory enough for all of them",
                "What they have scored is kept, and the same command goes on, with fewer of "
                "them too (processes=1).",
            )
        return any(copy.poll() is None for copy in self.running.values())

    def wait(self, seconds: float) -> None:
        """Let them come to their end by themselves, for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(c.poll() is None for c in self.running.values()):
            time.sleep(0.05)

    def __enter__(self) -> Copies:
        """The copies, already at work."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Nobody is left behind."""
        for copy in self.running.values():
            if copy.poll() is None:
                copy.terminate()
        for copy in self.running.values():
            copy.wait()


def abandoned() -> bool:
    """Whether the process that started this copy is gone."""
    return STARTED in os.environ and os.getppid() != int(os.environ[STARTED])
