"""The reference's temperature: of thirteen the one with the smallest ECE on the fit half.

For comparison with published numbers only. The ECE is a jagged function of T, so that its smallest
value on few texts says little: at 138 texts the excess NLL is about 2.7 times that of the T which
minimises the NLL (`temperature.py`). He et al., EACL 2021, reference code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from calib_ebm.calibration.calibrator import FIT_AGAIN, State, check_fit_half, check_name, notes_of
from calib_ebm.calibration.errors import ece_classwise, ece_top_label
from calib_ebm.calibration.temperature import Temperature
from calib_ebm.errors import InputError

GRID = (0.1, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)
ERRORS = {"top_label": ece_top_label, "classwise": ece_classwise}


class TemperatureGrid(Temperature):
    """The temperature of a fixed grid with the smallest ECE; of equal ones the first.

    Args:
        ece: which error with 20 bins is made small, "top_label" or "classwise": which of them the
            reference's tables were made with cannot be told.
    """

    name = "temperature_grid"

    def __init__(self, ece: str = "top_label") -> None:
        if ece not in ERRORS:
            raise InputError(
                f"calibrator.ece is {ece!r}.", " | ".join(ERRORS), "Leave it at top_label."
            )
        self.ece = ece
        super().__init__(GRID[0], GRID[-1])

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Try each temperature. Raises InputError as `Temperature.fit` does."""
        check_fit_half("A temperature", logits_NC, labels_N)
        logits_NC = logits_NC.detach().cpu().double()
        error = ERRORS[self.ece]

        def ece_at(temperature: float) -> float:
            return float(error((logits_NC / temperature).softmax(dim=1), labels_N.cpu()))

        self._temperature = min(GRID, key=ece_at)
        self.at_bound = self._temperature in (GRID[0], GRID[-1])
        bound = f"{self._temperature:g} is at the end of the grid." if self.at_bound else ""
        self.notes = (
            f"The temperature was taken from a grid by {self.ece.replace('_', '-')} ECE, for "
            f"comparison with published numbers only; calibrator=temperature is exact. {bound}"
            "".strip(),
        )
        return self

    @property
    def words(self) -> str:
        """How it was found, and T."""
        return f"temperature from the reference's grid (T = {self.temperature:g})"

    def state(self) -> State:
        """The temperature and the error it was chosen by."""
        return {
            "name": self.name,
            "temperature": self.temperature,
            "ece": self.ece,
            "notes": list(self.notes),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted one that wrote this state."""
        check_name(state, cls.name)
        calibrator = cls(str(state.get("ece")))
        temperature = state.get("temperature")
        if temperature not in GRID:
            raise InputError(
                f"The saved temperature is {temperature!r}.", f"one of {GRID}", FIT_AGAIN
            )
        calibrator._temperature = float(temperature)
        calibrator.at_bound = calibrator._temperature in (GRID[0], GRID[-1])
        calibrator.notes = notes_of(state)
        return calibrator
