"""The reference's grid, and what it costs on few texts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from calib_ebm.calibration.errors import ece_classwise, ece_top_label, nll
from calib_ebm.calibration.temperature import Temperature
from calib_ebm.calibration.temperature_grid import GRID, TemperatureGrid

ECES = {"top_label": ece_top_label, "classwise": ece_classwise}


def simulated(texts: int, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two classes, of whose logits `temperature` is the right one."""
    true = 2.5 * torch.randn(texts, 2, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    return temperature * true, labels


def test_it_is_the_reference_s_grid() -> None:
    assert GRID == (0.1, 0.5, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3)


@pytest.mark.parametrize("ece", sorted(ECES))
@pytest.mark.parametrize("seed", range(3))
def test_no_other_of_the_grid_has_a_smaller_ece(ece: str, seed: int) -> None:
    logits, labels = simulated(200, 1.6, torch.Generator().manual_seed(seed))
    fitted = TemperatureGrid(ece).fit(logits, labels)
    found = [ECES[ece]((logits / t).softmax(1), labels).item() for t in GRID]
    assert fitted.temperature == GRID[found.index(min(found))]
    assert "comparison with published numbers only" in fitted.notes[0]


def test_an_end_of_the_grid_is_noted() -> None:
    generator = torch.Generator().manual_seed(0)
    cold = TemperatureGrid().fit(*simulated(3000, 9.0, generator))
    assert cold.temperature == 3 and cold.at_bound and "at the end of the grid" in cold.notes[0]
    inside = TemperatureGrid().fit(*simulated(3000, 1.5, generator))
    assert not inside.at_bound and "end of the grid" not in inside.notes[0]


def test_many_texts_leave_the_right_one_or_its_neighbour() -> None:
    logits, labels = simulated(50_000, 2.0, torch.Generator().manual_seed(0))
    assert TemperatureGrid().fit(logits, labels).temperature in (1.75, 2.0, 2.25)


def test_on_138_texts_it_loses_more_than_twice_what_the_exact_one_does() -> None:
    """Half of RTE's dev set: METHOD measured 2.7 times the excess NLL. Here a loose bound."""
    generator = torch.Generator().manual_seed(0)
    held_logits, held_labels = simulated(40_000, 1.6, generator)
    best = nll((held_logits / 1.6).softmax(1), held_labels).item()
    excess = {"exact": 0.0, "grid": 0.0}
    halves = 150
    for _ in range(halves):
        logits, labels = simulated(138, 1.6, generator)
        for name, kind in (("exact", Temperature()), ("grid", TemperatureGrid())):
            probs = (held_logits / kind.fit(logits, labels).temperature).softmax(1)
            excess[name] += (nll(probs, held_labels).item() - best) / halves
    assert 0 < excess["exact"] < excess["grid"] and math.isfinite(excess["grid"])
    assert 1.5 < excess["grid"] / excess["exact"] < 6
