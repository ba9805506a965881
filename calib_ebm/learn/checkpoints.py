"""The checkpoints of a training: which one to go on from, and whether it is what was written."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

LAST, BEFORE = "last.ckpt", "before.ckpt"


class Found(NamedTuple):
    """Where to go on from.

    Attributes:
        path: the newest whole checkpoint, or None.
        note: a sentence for the person where a newer one is broken, else empty.
    """

    path: Path | None
    note: str


def find_checkpoint(folder: Path) -> Found:
    """The newest checkpoint in a folder that is whole; a broken one is passed over, and named."""
    there = [path for path in (folder / LAST, folder / BEFORE) if path.exists()]
    broken: list[Path] = []
    for path in there:
        if is_whole(path):
            return Found(path, _note(broken, "the training goes on from the one before"))
        broken.append(path)
    return Found(None, _note(broken, "there is no other, so that the training begins anew"))


def _note(broken: list[Path], then: str) -> str:
    if not broken:
        return ""
    names = " and ".join(str(path) for path in broken)
    return f"The checkpoint {names} is cut short or changed; {then}."


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is as it was written: an archive whose every part has its checksum.

    torch reads the parts without looking at their checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive raises errors of every kind, a missing one OSError
        return False


def checkpoint_step(path: Path) -> int:
    """The step that a checkpoint was written at."""
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])


class StraightToDisk(TorchCheckpointIO):
    """Writes a checkpoint where it belongs, so that it outlasts a power cut.

    Lightning's own way is by a copy in memory and one in the system's folder of temporary files,
    which may be another disk, and where a kill leaves it for ever.

    Args:
        make_room: called before anything is written.
    """

    def __init__(self, make_room: Callable[[], None]) -> None:
        super().__init__()
        self.make_room = make_room

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write all of it; the name is for the caller to give.

        Raises:
            OSError: when the disk is full; nothing is left then.
        """
        self.make_room()
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            Path(path).unlink(missing_ok=True)  # what else is written now needs the room
            # torch speaks of its archive, and not of the disk.
            refused = error if isinstance(error, OSError) else error.__context__
            if not isinstance(refused, OSError):
                raise
            refused.filename = refused.filename or str(path)
            raise refused from None
