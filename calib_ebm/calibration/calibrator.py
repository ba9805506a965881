"""What every post-hoc calibrator is: fitted on texts that are reported nowhere.

To add one: a class with these methods, its name in `calibrators.py`, and a config of that name in
`conf/calibrator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from torch import Tensor

State = dict[str, float | bool | str]
"""A fitted calibrator as plain values, for JSON: nothing in it can be executed."""


class Calibrator(Protocol):
    """From logits to probabilities. Take logits, never probabilities; work in float64."""

    name: ClassVar[str]

    def fit(self, logits_NC: Tensor, labels_N: Tensor) -> Self:
        """Fit on the fit half and return itself. Raises InputError where that cannot be done."""
        ...

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """Calibrated float64 probabilities. Raises InputError before `fit`."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the person about the last fit."""
        ...

    def state(self) -> State:
        """All that `from_state` needs. Raises InputError before `fit`."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Self:
        """The fitted calibrator that wrote this state."""
        ...
