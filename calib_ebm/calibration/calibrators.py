"""The post-hoc calibrators by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calib_ebm.calibration.binning import HistogramBinning, ScalingBinning
from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.one_versus_rest import Isotonic, Platt
from calib_ebm.calibration.scaling import MatrixScaling, VectorScaling
from calib_ebm.calibration.structured import Dirichlet, StructuredMatrix, StructuredVector
from calib_ebm.calibration.temperature import NoCalibration, Temperature
from calib_ebm.calibration.temperature_grid import TemperatureGrid
from calib_ebm.errors import InputError

_ALL: tuple[type[Calibrator], ...] = (
    NoCalibration,
    Temperature,
    TemperatureGrid,
    VectorScaling,
    MatrixScaling,
    StructuredVector,
    StructuredMatrix,
    Dirichlet,
    Platt,
    Isotonic,
    HistogramBinning,
    ScalingBinning,
)

CALIBRATORS: dict[str, type[Calibrator]] = {kind.name: kind for kind in _ALL}
"""Every calibrator by the name it has in `conf/calibrator`."""


def build_calibrator(config: Mapping[str, Any]) -> Calibrator:
    """The calibrator of a `calibrator` node: its `name`, and its constructor's arguments.

    Raises:
        InputError: for an unknown name or option.
    """
    options = {key: value for key, value in config.items() if key != "name"}
    kind = _kind(config.get("name"), "calibrator")
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(
            f"calibrator={kind.name} has options {sorted(options)}.",
            "the options in conf/calibrator",
            f"Correct them ({error}).",
        ) from error


def calibrator_from_state(state: Mapping[str, object]) -> Calibrator:
    """The fitted calibrator that wrote this state.

    Raises:
        InputError: when the state is of none, or is broken.
    """
    return _kind(state.get("name"), "The saved calibrator").from_state(state)


def _kind(name: object, what: str) -> type[Calibrator]:
    if not isinstance(name, str) or name not in CALIBRATORS:
        raise InputError(
            f"{what} is {str(name)!r}.", " | ".join(CALIBRATORS), "Set calibrator=temperature."
        )
    return CALIBRATORS[name]
