"""Whether the Hub is there to be asked, found out in seconds.

The libraries that download from it try an unreachable Hub again and again, for most of a minute
each; one short request before tells them to look in their cache at once.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

PATIENCE = 5.0
"""Seconds to wait for the Hub's first answer."""
REMEMBERED = 60.0
"""Seconds for which an answer, or silence, stands: a run asks for several things in a row."""


def must_be_local(name_or_path: str) -> bool:
    """Whether to look on this machine only: for a folder, or when the Hub does not answer."""
    return Path(name_or_path).is_dir() or not answers()


def answers() -> bool:
    """Whether the Hub can be reached; whatever it says, a refusal too, is an answer."""
    return _answered(int(time.monotonic() // REMEMBERED))


@lru_cache(maxsize=1)
def _answered(_: int) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of whichever layer: only what is on this machine remains
        return False
    return True


def forget() -> None:
    """Ask anew the next time."""
    _answered.cache_clear()
