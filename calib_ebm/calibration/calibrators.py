"""The post-hoc calibrators by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calib_ebm.calibration.temperature import NoCalibration, Temperature
from calib_ebm.errors import InputError

CALIBRATORS: dict[str, type[NoCalibration] | type[Temperature]] = {
    "none": NoCalibration,
    "temperature": Temperature,
}
"""Every calibrator by the name it has in `conf/calibrator`."""


def build_calibrator(config: Mapping[str, Any]) -> NoCalibration | Temperature:
    """The calibrator of a `calibrator` node: its `name`, and its constructor's arguments.

    Raises:
        InputError: for an unknown name or option.
    """
    options = {key: value for key, value in config.items() if key != "name"}
    name = str(config.get("name"))
    if name not in CALIBRATORS:
        raise InputError(
            f"calibrator is {name!r}.", " | ".join(CALIBRATORS), "Set calibrator=temperature."
        )
    try:
        return CALIBRATORS[name](**options)
    except TypeError as error:
        raise InputError(
            f"calibrator={name} has options {sorted(options)}.",
            "the options in conf/calibrator",
            f"Correct them ({error}).",
        ) from error
