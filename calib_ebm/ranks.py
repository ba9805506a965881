"""Which of several processes this one is, before anything heavy is imported."""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""What torchrun, Lightning and SLURM set; all of them are 0, or unset, in the first process."""


def is_first_process() -> bool:
    """Whether this is the process that speaks and writes, of however many there are."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)
