"""The smooth ECE against its definition, integrated with SciPy over mirrored Gaussians."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration.errors import ece_top_label
from calib_ebm.calibration.smooth import smooth_ece
from calib_ebm.errors import InputError

optimize = pytest.importorskip("scipy.optimize", reason="SciPy, of the extra dev")


def drawn(texts: int, seed: int, heat: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, 2, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / heat).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits.softmax(dim=1), labels


def by_definition(confidence: np.ndarray, right: np.ndarray) -> float:
    """Gaussians at a confidence and at its mirror images in 0 and 1; brentq for the width."""
    middle = (np.arange(8000) + 0.5) / 8000

    def error(width: float) -> float:
        r = np.zeros_like(middle)
        images = range(-math.ceil(4 * width) - 1, math.ceil(4 * width) + 2)
        for p, y in zip(confidence, right, strict=True):
            centres = [2 * k + sign * p for k in images for sign in (1, -1)]
            for centre in centres:
                r += (p - y) * np.exp(-(((middle - centre) / width) ** 2) / 2)
        r /= len(right) * width * math.sqrt(2 * math.pi)
        return float(np.abs(r).mean())

    return optimize.brentq(lambda width: error(width) - width, 0.01, 1, xtol=1e-7)


@pytest.mark.parametrize(("texts", "seed"), [(5, 0), (30, 1), (60, 2), (60, 3)])
def test_as_defined(texts: int, seed: int) -> None:
    probs, labels = drawn(texts, seed)
    right = (probs.argmax(dim=1) == labels).numpy().astype(float)
    expected = by_definition(probs.amax(dim=1).numpy(), right)
    assert smooth_ece(probs, labels).item() == pytest.approx(expected, abs=2e-5)


def test_opposite_gaps_far_apart_add_up_and_close_by_cancel() -> None:
    def figure(low: float) -> float:
        confidence = torch.tensor([low] * 10 + [0.95] * 10, dtype=torch.float64)
        right = torch.tensor([1] * 10 + [0] + [1] * 9)
        probs = torch.stack([confidence, 1 - confidence], dim=1)
        return smooth_ece(probs, 1 - right).item()

    # At .55 right ten times of ten (gap .45); at .95 nine of ten (gap .05 the other way).
    net = (0.45 - 0.05) / 2
    assert net < figure(0.55) < (0.45 + 0.05) / 2
    # At .94 and .95 the gaps are .06 and .05, and the net one .005.
    assert (0.06 - 0.05) / 2 < figure(0.94) < (0.06 + 0.05) / 2 / 3


@given(texts=st.integers(1, 80), seed=st.integers(0, 10**4))
def test_between_the_net_gap_and_the_gaps_text_by_text(texts: int, seed: int) -> None:
    probs, labels = drawn(texts, seed)
    gap = probs.amax(dim=1) - (probs.argmax(dim=1) == labels).double()
    figure = smooth_ece(probs, labels).item()
    # A kernel of less width than the nodes are apart rings a little.
    slack = 1e-6 if figure > 0.002 else 5e-5
    assert gap.mean().abs().item() - slack <= figure <= gap.abs().mean().item() + slack


def test_a_small_change_changes_it_little_where_an_ece_jumps() -> None:
    """Two texts, right and wrong, on both sides of a bin's edge or on one."""
    labels = torch.tensor([0, 1])
    apart, together = (
        torch.tensor([[p, 1 - p] for p in pair], dtype=torch.float64)
        for pair in ([0.8999, 0.9001], [0.8998, 0.8999])
    )
    jump = (ece_top_label(apart, labels) - ece_top_label(together, labels)).abs().item()
    change = (smooth_ece(apart, labels) - smooth_ece(together, labels)).abs().item()
    assert jump > 0.09
    assert change < 0.001


def test_more_miscalibration_is_more() -> None:
    figures = [smooth_ece(*drawn(4000, 0, heat)).item() for heat in (1.0, 1.5, 3.0)]
    assert figures[0] < 0.02 < figures[1] < figures[2] - 0.05


def test_certain_probabilities() -> None:
    certain = torch.eye(2).double()
    assert smooth_ece(certain, torch.tensor([0, 1])).item() == 0
    assert smooth_ece(certain, torch.tensor([1, 0])).item() == pytest.approx(1)


def test_bad_input() -> None:
    probs, labels = drawn(4, 0)
    with pytest.raises(InputError, match="look like logits"):
        smooth_ece(probs.log(), labels)
