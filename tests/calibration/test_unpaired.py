"""Differences between sets of other texts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from calib_ebm.calibration.accuracy import correct_each
from calib_ebm.calibration.compare import paired_bootstrap
from calib_ebm.calibration.errors import ece_top_label
from calib_ebm.calibration.unpaired import unpaired_difference
from calib_ebm.errors import InputError


def drawn(texts: int, seed: int, sharpen: float = 1.0) -> tuple[Tensor, Tensor]:
    """Labels drawn from a softmax, and that softmax sharpened."""
    generator = torch.Generator().manual_seed(seed)
    logits_NC = 2 * torch.randn(texts, 2, generator=generator).double()
    labels_N = logits_NC.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return (sharpen * logits_NC).softmax(dim=1), labels_N


def test_of_accuracies_it_is_the_textbook_interval() -> None:
    first, second = drawn(800, 0), drawn(500, 1)
    found = unpaired_difference(first, second, "acc", resamples=4000)
    right = [correct_each(*each) for each in (first, second)]
    value = (right[0].mean() - right[1].mean()).item()
    half = 1.959964 * math.sqrt(sum(r.var(correction=0).item() / len(r) for r in right))
    assert found.value == pytest.approx(value, abs=1e-12)
    # A quantile of 4,000 resamples is off by some 2% of the half width.
    assert found.low == pytest.approx(value - half, abs=0.08 * half)
    assert found.high == pytest.approx(value + half, abs=0.08 * half)


def test_the_value_is_the_difference_of_the_estimates() -> None:
    first, second = drawn(300, 0, 3.0), drawn(400, 1)
    found = unpaired_difference(first, second, "cal/ece")
    expected = ece_top_label(*first).item() - ece_top_label(*second).item()
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert 0 < found.low < found.value < found.high  # one is much too sure


def test_a_set_against_itself_is_not_taken_for_paired() -> None:
    probs_NC, labels_N = drawn(400, 0)
    found = unpaired_difference((probs_NC, labels_N), (probs_NC, labels_N), "nll")
    assert found.value == 0 and found.low < -0.01 and found.high > 0.01
    paired = paired_bootstrap(probs_NC, probs_NC, labels_N, "nll")
    assert paired.low == paired.high == 0  # the control


def test_what_is_no_set_is_refused() -> None:
    first = drawn(10, 0)
    with pytest.raises(InputError, match="sum to"):
        unpaired_difference(first, (first[0] * 2, first[1]), "nll")
    with pytest.raises(InputError, match="no estimate"):
        unpaired_difference(first, first, "bleu")
