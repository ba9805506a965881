"""The processes of a run as one group: who starts them, how they agree, and when one dies.

Where torchrun or srun has started them, this only lets them meet. Elsewhere the first process
starts copies of its own command, before the first stage, so that every stage is shared: Lightning
would start them with the training. One that dies ends all, and the first process says which.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed

from calib_ebm.errors import InputError, Interrupted, TrainingFailed
from calib_ebm.learn.fit import bare_trainer
from calib_ebm.learn.processes import Copies, Place, abandoned, place_of
from calib_ebm.learn.team import ALONE, Team

Say = Callable[[str], None]

AS_LONG_AS_IT_TAKES = timedelta(days=30)
"""For words that may wait for another command's work; who has died breaks the connection."""
POLL, GRACE, LEAVE = 0.5, 20.0, 60.0
"""Seconds between two looks at the copies, until a process that hangs in what it shared with a dead
one is ended, and until copies that have nothing more to do are."""
OF_A_PEER = re.compile(
    r"closed by peer|reset by peer|broken pipe|connection refused|no route to host|timed out|"
    r"timeout|nccl|gloo|connectFullMesh|TCPStore",
    re.IGNORECASE,
)
"""What torch says where another process is gone."""
GOES_ON = (
    "That ends all of them. What was written is whole: the same command goes on, on fewer "
    "processes too (another trainer= of the same precision)."
)


def is_shared(trainer: Mapping[str, Any]) -> bool:
    """Whether the settings of a trainer are for several processes."""
    return str(trainer["strategy"]).startswith(("ddp", "fsdp"))


def refuse_separate(trainer: Mapping[str, Any]) -> None:
    """Refuse several processes that a launcher has started and that would each train alone.

    Raises:
        InputError: naming what was started.
    """
    world = place_of(os.environ).world
    if world > 1 and not is_shared(trainer):
        raise InputError(
            f"{world} processes were started, and trainer.strategy={trainer['strategy']} trains in "
            "one.",
            "trainer=ddp or fsdp (ddp_cpu or fsdp_cpu without GPUs) under torchrun or srun",
            "Add trainer=ddp and, for n processes on each of m machines, trainer.devices=n "
            "trainer.num_nodes=m, or start one process.",
        )


def as_launched(world: int) -> dict[str, Any]:
    """A `trainer` group for so many processes, on CPUs, as a launcher has started them."""
    asked = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    here = min(world, int(asked)) if asked else world
    return {
        "accelerator": "cpu",
        "devices": here,
        "num_nodes": world // here,
        "strategy": "ddp",
        "precision": "32-true",
    }


@contextmanager
def team_of(trainer: Mapping[str, Any], say: Say) -> Iterator[Team]:
    """All processes of a run, met; within it they share what they do.

    Args:
        trainer: the `trainer` group; with a strategy for one process, this one is alone.
        say: takes lines for the person.

    Raises:
        InputError: when as many processes were not started as the settings are for.
        TrainingFailed: when another process dies meanwhile; the first one names it.
    """
    if not is_shared(trainer):
        yield ALONE
        return
    # Whatever shards the weights later, processes meet in the same way, which asks for no module.
    probe = bare_trainer({**trainer, "strategy": "ddp", "precision": "32-true"})
    world = probe.num_devices * probe.num_nodes
    strategy: Any = probe.strategy
    outside = strategy.cluster_environment.creates_processes_externally
    _require_as_many(probe, outside)
    if world == 1:
        yield ALONE
        return
    with ExitStack() as held:
        copies = None if outside else held.enter_context(_copies(probe))
        watch = held.enter_context(_watched(copies, say))
        place = place_of(os.environ)  # asked now, for Lightning removes a part of it
        team = Team(place.rank, place.world)
        try:
            team = _meet(probe, trainer)
            yield team
        except (InputError, TrainingFailed, Interrupted):
            raise
        except Exception as error:
            raise _of_a_peer(error, place, team, copies) from error
        finally:
            watch.over.set()
            _part()
        if copies is not None:
            copies.wait(LEAVE)


def _require_as_many(probe: pl.Trainer, outside: bool) -> None:
    """Refuse a number of processes that is not that of the settings."""
    strategy: Any = probe.strategy
    started, wanted = strategy.cluster_environment.world_size(), probe.num_devices * probe.num_nodes
    if outside and started != wanted:
        raise InputError(
            f"{started} processes were started, and the settings are for {wanted}: "
            f"trainer.devices={probe.num_devices} on each of {probe.num_nodes} machines.",
            "as many as were started",
            "Set trainer.devices to the processes of a machine, trainer.num_nodes to the machines.",
        )
    missing = [n for n in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if n not in os.environ]
    if probe.num_nodes > 1 and not outside and missing:
        raise InputError(
            f"trainer.num_nodes is {probe.num_nodes}, and {', '.join(missing)} is not in the "
            "environment.",
            "processes that torchrun or srun starts, or one command a machine with these set",
            "Start the command under torchrun or srun.",
        )


@contextmanager
def _copies(probe: pl.Trainer) -> Iterator[Copies]:
    """Start this machine's other processes; meanwhile the environment is as a launcher's."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    assert spec is not None, "commands are started with python -m"
    node = int(os.environ.get("NODE_RANK", "0"))
    first = node * probe.num_devices
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
        "NODE_RANK": str(node),
        "WORLD_SIZE": str(probe.num_devices * probe.num_nodes),
    }
    before = {name: os.environ.get(name) for name in (*told, "RANK", "LOCAL_RANK")}
    os.environ.update({**told, "RANK": str(first), "LOCAL_RANK": "0"})
    try:
        with Copies(probe.num_devices, spec.name, first, told) as copies:
            yield copies
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _meet(probe: pl.Trainer, trainer: Mapping[str, Any]) -> Team:
    """Let the processes meet, in Lightning's way, whose trainers find the group there."""
    probe.strategy.setup_environment()
    if probe.strategy.root_device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # Threads of several processes on the same cores are in one another's way.
        asked = trainer.get("threads") or max(1, (os.cpu_count() or 1) // probe.num_devices)
        torch.set_num_threads(int(asked))
    words = distributed.new_group(backend="gloo", timeout=AS_LONG_AS_IT_TAKES)
    return Team(distributed.get_rank(), distributed.get_world_size(), words)


def _part() -> None:
    """Let go of the group, so that another run of this command makes its own."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class _Watch(threading.Thread):
    """Looks after the copies; in a copy, after the process that started it."""

    def __init__(self, copies: Copies | None, say: Say) -> None:
        super().__init__(daemon=True, name="watch")
        self.copies, self.say = copies, say
        self.over = threading.Event()

    def run(self) -> None:
        """Until it is over."""
        while not self.over.wait(POLL):
            if abandoned():
                os.kill(os.getpid(), signal.SIGKILL)
            if self.copies is None or not (dead := self.copies.dead()):
                continue
            # What was shared with the dead one fails, mostly at once, and then the main thread
            # says so; where it hangs, as in a GPU's collective, nothing else can end it.
            if not self.over.wait(GRACE):
                self.say(f"error: {dead} {GOES_ON}")
                for copy in self.copies.running.values():
                    copy.kill()
                os.kill(os.getpid(), signal.SIGKILL)
            return


@contextmanager
def _watched(copies: Copies | None, say: Say) -> Iterator[_Watch]:
    watch = _Watch(copies, say)
    watch.start()
    try:
        yield watch
    finally:
        watch.over.set()


def _of_a_peer(error: Exception, place: Place, team: Team, copies: Copies | None) -> Exception:
    """What to raise for an error: that another process died, where that is what it comes from."""
    if not OF_A_PEER.search(str(error)):
        return error
    if copies is not None:
        copies.wait(2.0)
        if dead := copies.dead():
            return TrainingFailed(f"{dead} {GOES_ON}")
    return TrainingFailed(
        f"Process {place.rank} of 0 to {place.world - 1} has lost {_missing(team)}, which has "
        f"ended or cannot be reached. {GOES_ON}"
    )


def _missing(team: Team) -> str:
    """Which processes do not answer any more; the first one asks."""
    if team.world == 2:
        return f"process {1 - team.rank}"
    if team.words is not None:
        try:
            distributed.monitored_barrier(team.words, timedelta(seconds=5), wait_all_ranks=True)
        except RuntimeError as error:
            if team.first and (found := re.search(r"Ranks? ([\d, ]+) failed", str(error))):
                return f"process {found[1].strip()}"
    return "another one"
