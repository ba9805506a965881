"""What finished models compute on."""

from __future__ import annotations

import os

import torch

from calib_ebm.errors import InputError
from calib_ebm.learn.processes import Place


def device_of(given: str, place: Place) -> torch.device:
    """The device that a process computes on.

    Raises:
        InputError: for one that this machine has not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if given == "auto":
        given = "cuda" if count else "cpu"
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if given not in known:
        raise InputError(
            f"device={given} is not to be had: this machine has {count} GPUs that torch can use.",
            ", ".join(["auto", *known]),
            "Leave it out.",
        )
    if given == "cuda":
        return torch.device("cuda", place.local % count)
    return torch.device(given)


def set_threads(given: int | None, device: torch.device, place: Place) -> None:
    """Threads of this process on the CPU, which those of a machine share where none are given."""
    threads = given
    if threads is None and device.type == "cpu" and place.world > 1:
        threads = max(1, (os.cpu_count() or 1) // place.world)
    if threads is not None:
        torch.set_num_threads(int(threads))
