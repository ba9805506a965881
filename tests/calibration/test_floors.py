"""The floor: against exact enumeration, the figures of the method's notes, and its own meaning."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from calib_ebm.calibration import floors
from calib_ebm.calibration.brier import brier_parts
from calib_ebm.calibration.errors import ece_classwise, ece_debiased_l2, ece_pooled, ece_top_label
from calib_ebm.calibration.floors import null_draws, null_ece, p_value
from calib_ebm.calibration.ordered import ece_equal_mass, ece_sweep, ks_error
from calib_ebm.calibration.smooth import smooth_ece
from calib_ebm.errors import InputError

ECES = {
    "cal/ece": ece_top_label,
    "cal/ece_classwise": ece_classwise,
    "cal/ece_pooled": ece_pooled,
    "cal/ece_equal_mass": ece_equal_mass,
    "cal/ece_debiased_l2": ece_debiased_l2,
    "cal/ece_sweep": ece_sweep,
    "cal/smooth_ece": smooth_ece,
    "cal/ks": ks_error,
    "brier/reliability": lambda probs, labels: brier_parts(probs, labels).reliability,
}


def confident(texts: int, seed: int) -> Tensor:
    """Two classes; the confidence is 1/2 + Beta(9, 1) / 2, of mean .95 (Beta(9, 1) is U^(1/9))."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(texts, generator=generator, dtype=torch.float64)
    confidence = 0.5 + 0.5 * uniform ** (1 / 9)
    return torch.stack([confidence, 1 - confidence], dim=1)


def labels_from(probs: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


@pytest.mark.parametrize(
    ("texts", "floor"), [(35, 0.060), (138, 0.031), (204, 0.026), (436, 0.018), (521, 0.017)]
)
def test_a_perfect_model_shows_the_published_floor(texts: int, floor: float) -> None:
    """At half of the dev sets of WNLI, RTE, MRPC, SST-2 and CoLA; over 20 sets, 200 draws each."""
    means = [null_ece(confident(texts, seed), draws=200, seed=seed).mean for seed in range(20)]
    assert sum(means) / 20 == pytest.approx(floor, rel=0.06)


def test_the_null_distribution_is_that_of_all_label_vectors() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.02, 0.08, 0.9]]).double()
    exact = dict.fromkeys(ECES, 0.0)
    for labels in product(range(3), repeat=3):
        chance = probs[range(3), list(labels)].prod().item()
        for name, ece in ECES.items():
            exact[name] += chance * ece(probs, torch.tensor(labels)).item()
    null = null_draws(probs, draws=20_000)
    for name, draws in null.items():
        error = draws.std().item() / 20_000**0.5
        assert draws.mean().item() == pytest.approx(exact[name], abs=4 * error), name
    assert exact["cal/ece"] > exact["cal/ece_classwise"] + 0.01 > exact["cal/ece_pooled"] + 0.02


def test_every_draw_is_an_ece_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = confident(50, 0)
    labels_NR = torch.stack([labels_from(probs, seed) for seed in range(7)], dim=1)
    monkeypatch.setattr(floors, "_draw_labels", lambda *_: labels_NR)
    null = null_draws(probs, draws=7)
    assert set(null) == set(ECES)
    for name, ece in ECES.items():
        expected = torch.stack([ece(probs, labels) for labels in labels_NR.T])
        atol = 1e-6 if name == "cal/smooth_ece" else 1e-12  # found by search
        torch.testing.assert_close(null[name], expected, rtol=0, atol=atol)


def test_a_class_of_probability_zero_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]).double()
    labels = floors._draw_labels(probs, 5000, torch.Generator().manual_seed(0))
    assert labels[0].unique().tolist() == [1]
    assert labels[1].unique().tolist() == [1, 2]
    assert (labels[1] == 1).double().mean().item() == pytest.approx(0.5, abs=0.03)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(*size).double())
    assert floors._draw_labels(probs, 1, torch.Generator())[:, 0].tolist() == [1, 1]


def test_p_values_of_a_calibrated_model_are_spread_evenly_and_of_another_are_small() -> None:
    perfect, sharpened = [], []
    for seed in range(100):
        probs = confident(138, seed)
        labels = labels_from(probs, seed)
        too_sure = (probs.log() / 0.4).softmax(dim=1)
        for given, values in ((probs, perfect), (too_sure, sharpened)):
            null = null_draws(given, draws=100, seed=seed, names=["cal/ece"])["cal/ece"]
            values.append(p_value(null, ece_top_label(given, labels).item()))
    assert sum(perfect) / 100 == pytest.approx(0.5, abs=0.12)
    assert sum(value <= 0.05 for value in perfect) <= 12
    assert sum(value <= 0.05 for value in sharpened) >= 60


def test_p_value_counts_the_observed_one_and_ties() -> None:
    null = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    assert p_value(null, 0.5) == 1 / 5
    assert p_value(null, 0.3) == 3 / 5
    assert p_value(null, 0.3 + 1e-15) == 3 / 5
    assert p_value(null, 0.0) == 1
    certain = torch.eye(2).double()
    assert p_value(null_draws(certain, draws=10)["cal/ece"], 0.0) == 1


@pytest.mark.parametrize("name", ["cal/ece_equal_mass", "cal/ece_sweep", "cal/smooth_ece"])
def test_no_other_figure_is_without_a_floor(name: str) -> None:
    """Equal mass, the sweep and the kernel do not remove it; half of RTE's dev set."""
    means = [null_ece(confident(138, s), draws=200, estimate=name).mean for s in range(10)]
    assert sum(means) / 10 > 0.015


def test_equal_mass_has_the_higher_floor_where_most_are_confident() -> None:
    """.031 with bins of equal width, most of them empty; twenty full ones share out the noise."""
    probs = confident(138, 0)
    equal_width, equal_mass = (
        null_ece(probs, draws=300, estimate=name).mean for name in ("cal/ece", "cal/ece_equal_mass")
    )
    assert equal_mass > 1.5 * equal_width


def test_more_texts_lower_the_floor_and_the_95_percent_point_is_above_the_mean() -> None:
    few, many = (null_ece(confident(texts, 0), draws=300) for texts in (100, 1600))
    assert many.mean == pytest.approx(few.mean / 4, rel=0.25)
    for mean, p95 in (few, many):
        assert mean < p95 < 2 * mean


def test_seeds_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = confident(60, 0)
    state = torch.get_rng_state()
    once = null_ece(probs, draws=500, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert null_ece(probs, draws=500, seed=1) == once
    assert null_ece(probs, draws=500, seed=2) != once
    monkeypatch.setattr(floors, "CHUNK", 1000)
    in_parts = null_draws(probs, draws=500, seed=1)["cal/ece"]
    assert in_parts.shape == (500,)
    assert in_parts.mean().item() == pytest.approx(once.mean, rel=0.05)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="look like logits"):
        null_ece(torch.tensor([[2.0, -1.0]]))
    with pytest.raises(InputError, match="draws is 0"):
        null_ece(confident(3, 0), draws=0)
    with pytest.raises(InputError, match="bins is 0"):
        null_ece(confident(3, 0), bins=0)
    with pytest.raises(InputError, match="estimate with a floor is 'nll'"):
        null_ece(confident(3, 0), estimate="nll")
