"""The terms of the Brier score: by hand, by a loop over groups, and that they add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration.brier import BrierParts, brier_parts
from calib_ebm.calibration.errors import brier, ece_classwise
from calib_ebm.errors import InputError


def drawn(texts: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / 1.5).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits.softmax(dim=1), labels


def by_groups(probs: np.ndarray, labels: np.ndarray, bins: int) -> list[float]:
    """Stephenson, Coelho and Jolliffe's sums, one group of texts at a time."""
    classes = probs.shape[1]
    edges = np.arange(1, bins) / bins
    terms = np.zeros(5)
    for c in range(classes):
        p, y = probs[:, c], (labels == c).astype(float)
        group = np.searchsorted(edges, p, side="left")
        for m in np.unique(group):
            inside = group == m
            share = inside.mean()
            dp, dy = p[inside] - p[inside].mean(), y[inside] - y[inside].mean()
            terms[0] += share * (p[inside].mean() - y[inside].mean()) ** 2
            terms[1] += share * (y[inside].mean() - y.mean()) ** 2
            terms[3] += share * (dp**2).mean()
            terms[4] += share * 2 * (dp * dy).mean()
        terms[2] += y.mean() * (1 - y.mean())
    return terms.tolist()


@pytest.mark.parametrize("bins", [1, 5, 20])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_as_group_by_group(classes: int, bins: int) -> None:
    probs, labels = drawn(200, classes, bins)
    ours = [part.item() for part in brier_parts(probs, labels, bins)]
    assert ours == pytest.approx(by_groups(probs.numpy(), labels.numpy(), bins), abs=1e-12)


@given(
    texts=st.integers(1, 60),
    classes=st.integers(2, 4),
    bins=st.integers(1, 30),
    seed=st.integers(0, 10**4),
)
def test_the_terms_add_up_exactly_whatever_the_bins(
    texts: int, classes: int, bins: int, seed: int
) -> None:
    probs, labels = drawn(texts, classes, seed)
    parts = brier_parts(probs, labels, bins)
    assert parts.total.item() == pytest.approx(brier(probs, labels).item(), abs=1e-12)
    assert min(part.item() for part in parts[:4]) >= -1e-15
    of_norm = ece_classwise(probs, labels, bins, norm="l2").item() ** 2 * classes
    assert parts.reliability.item() == pytest.approx(of_norm, abs=1e-12)


def test_murphy_s_three_are_enough_only_for_equal_forecasts() -> None:
    probs = torch.tensor([[0.2, 0.8]] * 5 + [[0.7, 0.3]] * 5).double()
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1, 0, 0])
    parts = brier_parts(probs, labels)
    # Class 1: .8 comes true 3 of 5 times and .3 once of 5; four of ten overall.
    reliability = 1 / 2 * (0.8 - 3 / 5) ** 2 + 1 / 2 * (0.3 - 1 / 5) ** 2
    resolution = 1 / 2 * (3 / 5 - 4 / 10) ** 2 + 1 / 2 * (1 / 5 - 4 / 10) ** 2
    by_hand = BrierParts(*(torch.tensor(2 * x) for x in (reliability, resolution, 0.24, 0.0, 0.0)))
    for ours, expected in zip(parts, by_hand, strict=True):
        assert ours.item() == pytest.approx(expected.item(), abs=1e-7)
    one_bin = brier_parts(probs, labels, bins=1)
    assert abs(one_bin.within.item()) > 0.01
    three = one_bin.reliability - one_bin.resolution + one_bin.uncertainty
    assert three.item() != pytest.approx(brier(probs, labels).item(), abs=0.01)


def test_certain_and_right_and_of_one_class() -> None:
    right = brier_parts(torch.eye(3).double(), torch.arange(3))
    assert right.total.item() == pytest.approx(0, abs=1e-15)
    assert right.resolution.item() == pytest.approx(right.uncertainty.item())
    one_class = brier_parts(torch.tensor([[1.0, 0.0]] * 4), torch.zeros(4).long())
    assert [part.item() for part in one_class] == [0, 0, 0, 0, 0]


def test_bad_input() -> None:
    probs, labels = drawn(4, 2, 0)
    with pytest.raises(InputError, match="look like logits"):
        brier_parts(probs.log(), labels)
    with pytest.raises(InputError, match="bins is 0"):
        brier_parts(probs, labels, 0)
