"""Single settings, checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calib_ebm.errors import InputError


def whole_number(config: Mapping[str, Any], name: str) -> int | None:
    """A setting that is a whole number from 1, or null.

    Raises:
        InputError: for anything else.

    >>> whole_number({"window": 2048}, "window")
    2048
    """
    value = config[name]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name} is {value!r}.", "a whole number from 1", "Correct it.")
    return value
