"""What every calibrator must do: properties, guards, and life as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.calibrators import CALIBRATORS, build_calibrator, calibrator_from_state
from calib_ebm.calibration.errors import ece_top_label, nll
from calib_ebm.errors import InputError

NAMES = sorted(CALIBRATORS)
FITTED = sorted({*CALIBRATORS} - {"none"})
KEEP_THE_ORDER = ("none", "temperature", "temperature_grid")
OF_LOGITS_THEMSELVES = ("vector", "matrix")  # a constant added to a text's logits changes them


def simulated(
    texts: int, classes: int = 3, factor: float = 2.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits that are `factor` times those the labels come from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return factor * logits, labels


def fitted(name: str, logits: Tensor, labels: Tensor, **options: object) -> Calibrator:
    return build_calibrator({"name": name, **options}).fit(logits, labels)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(
    texts=st.integers(2, 60),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    log_factor=st.floats(-5, 5),
)
def test_rows_are_distributions(
    name: str, texts: int, classes: int, seed: int, log_factor: float
) -> None:
    """However few the texts, whichever classes are missing, flat logits or saturated ones."""
    logits, labels = simulated(texts, classes, math.exp(log_factor), seed)
    if len(labels.unique()) == 1:
        labels[0] = (labels[0] + 1) % classes
    calibrator = fitted(name, logits, labels)
    unseen = torch.cat((simulated(20, classes, 3.0, seed + 1)[0], 300 * torch.eye(classes)))
    for rows in (logits, unseen):
        probs = calibrator.probabilities(rows)
        assert probs.dtype == torch.float64
        assert probs.isfinite().all() and (probs >= 0).all()
        torch.testing.assert_close(
            probs.sum(dim=1), torch.ones(len(rows), dtype=torch.float64), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("classes", [2, 4])
def test_each_mends_an_overconfident_classifier(name: str, classes: int) -> None:
    logits, labels = simulated(4000, classes, 3.0)
    held_logits, held_labels = simulated(4000, classes, 3.0, seed=1)
    before = held_logits.softmax(dim=1)
    after = fitted(name, logits, labels).probabilities(held_logits)
    assert ece_top_label(after, held_labels) < ece_top_label(before, held_labels) / 3
    assert nll(after, held_labels) < nll(before, held_labels) - 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_predicted_class_is_kept_only_by_a_temperature(name: str) -> None:
    logits, labels = simulated(200, 4)
    logits[:, 0] += 3  # so that class 0 is predicted too often
    kept = fitted(name, logits, labels).probabilities(logits).argmax(1).equal(logits.argmax(1))
    assert kept == (name in KEEP_THE_ORDER)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_added_to_the_logits_of_a_text(name: str) -> None:
    logits, labels = simulated(300)
    shifted = logits + torch.linspace(-9, 9, 300, dtype=torch.float64)[:, None]
    ours = fitted(name, logits, labels).probabilities(logits)
    theirs = fitted(name, shifted, labels).probabilities(shifted)
    if name in OF_LOGITS_THEMSELVES:
        assert (ours - theirs).abs().max() > 0.01
    else:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["temperature", "vector", "matrix", "structured_matrix", "platt"])
@pytest.mark.parametrize("factor", [0.02, 20.0])
def test_the_size_of_the_logits_does_not_matter(name: str, factor: float) -> None:
    """Within the bounds of the temperature that most of them begin with."""
    logits, labels = simulated(200, 2 if name == "platt" else 3)
    ours = fitted(name, logits, labels).probabilities(logits)
    theirs = fitted(name, factor * logits, labels).probabilities(factor * logits)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (torch.zeros(0, 3), torch.zeros(0).long(), "on an empty fit half"),
        (torch.ones(1, 3), torch.tensor([1]), r"on 1 texts of 1 class"),
        (torch.eye(3), torch.tensor([1, 1, 1]), r"on 3 texts of 1 class"),
        (torch.eye(3), torch.tensor([0, 1, 3]), "label of row 2 is 3"),
        (torch.eye(3), torch.tensor([0, -1, 1]), "label of row 1 is -1"),
        (torch.eye(3), torch.tensor([0, 1]), r"Labels of shape \(2,\) for 3 rows"),
        (torch.eye(3) / 0, torch.tensor([0, 1, 2]), "row 0 are not finite"),
        (torch.randn(3, 3).softmax(1), torch.tensor([0, 1, 2]), "these are probabilities"),
    ],
)
def test_what_none_can_be_fitted_on(name: str, logits: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fitted(name, logits, labels)


@pytest.mark.parametrize("name", FITTED)
def test_it_must_be_fitted_first(name: str) -> None:
    empty = build_calibrator({"name": name})
    for use in (
        lambda: empty.probabilities(torch.zeros(1, 3)),
        lambda: empty.state(),
        lambda: empty.words,
    ):
        with pytest.raises(InputError, match="was not fitted"):
            use()


@pytest.mark.parametrize("name", [name for name in FITTED if not name.startswith("temperature")])
def test_it_must_not_be_given_other_classes(name: str) -> None:
    """But for a temperature: one number serves any classes."""
    with pytest.raises(InputError, match="Logits of 2 classes"):
        fitted(name, *simulated(50)).probabilities(torch.zeros(1, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
def test_saved_and_loaded_through_json(name: str, classes: int) -> None:
    logits, labels = simulated(60, classes)
    if classes == 4:
        labels[labels == 2] = 0  # a class that the fit half does not hold
    ours = fitted(name, logits, labels)
    again = calibrator_from_state(json.loads(json.dumps(ours.state(), allow_nan=False)))
    assert torch.equal(again.probabilities(logits), ours.probabilities(logits))
    assert (again.notes, again.words, again.state()) == (ours.notes, ours.words, ours.state())
    assert again.temperature == ours.temperature


@pytest.mark.parametrize("name", sorted({*FITTED} - {"temperature"}))
@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: None,
        lambda one: "many",
        lambda one: [],
        lambda one: [math.nan] * len(one) if isinstance(one, list) else math.nan,
        lambda one: {"x": 1},
    ],
)
def test_a_broken_state_is_refused_whatever_is_broken(
    name: str, spoil: Callable[[object], object]
) -> None:
    state = fitted(name, *simulated(60)).state()
    for key, value in state.items():
        if key in ("notes", "equal_mass", "smooth"):
            continue
        with pytest.raises(InputError):
            calibrator_from_state(state | {key: spoil(value)})


@pytest.mark.parametrize("name", ["platt", "isotonic", "histogram_binning", "scaling_binning"])
def test_a_broken_curve_is_refused(name: str) -> None:
    state = json.loads(json.dumps(fitted(name, *simulated(60)).state()))
    for key, value in state["curves"][1].items():
        spoilt = [value[::-1], value[1:], [7.0] * len(value)] if isinstance(value, list) else ["x"]
        for other in spoilt:
            curves = [*state["curves"]]
            curves[1] = {**curves[1], key: other}
            if key in ("y", "values") and other == value[::-1]:
                continue  # shares in another order are shares
            with pytest.raises(InputError):
                calibrator_from_state({**state, "curves": curves})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"name": "vector", "ridge": -1}, "ridge is -1"),
        ({"name": "vector", "ridge": math.inf}, "ridge is inf"),
        ({"name": "structured_matrix", "off_diagonal": -2.0}, "off_diagonal is -2"),
        ({"name": "histogram_binning", "bins": 0}, "bins is 0"),
        ({"name": "scaling_binning", "bins": 2.5}, "bins is 2.5"),
        ({"name": "isotonic", "smooth": "yes"}, "smooth is 'yes'"),
        ({"name": "temperature_grid", "ece": "pooled"}, "ece is 'pooled'"),
        ({"name": "dirichlet", "mu": 1.0}, r"calibrator=dirichlet has options \['mu'\]"),
        ({"name": "vektor"}, "calibrator is 'vektor'"),
    ],
)
def test_an_option_that_is_none(config: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_calibrator(config)


@pytest.mark.parametrize("name", FITTED)
def test_a_class_missing_from_the_fit_half_is_named(name: str) -> None:
    logits, labels = simulated(400, 4)
    there = labels != 2
    calibrator = fitted(name, logits[there], labels[there])
    told = any("no text of class 2" in note for note in calibrator.notes)
    assert told == (not name.startswith("temperature"))
    probs = calibrator.probabilities(logits)
    assert (probs[:, 2] > 0).all() and nll(probs, labels).isfinite()
    whole = fitted(name, logits, labels)
    assert not any("no text of class" in note for note in whole.notes)


@pytest.mark.parametrize("name", FITTED)
def test_classes_told_apart_without_error(name: str) -> None:
    """No finite maximum of the likelihood: each has its own way to stay finite."""
    logits = 3 * torch.nn.functional.one_hot(torch.arange(60) % 3).double()
    logits += 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    calibrator = fitted(name, logits, labels)
    probs = calibrator.probabilities(logits)
    # A bin of equal mass may lie across the gap.
    assert (probs.argmax(1) == labels).sum() >= 60 - (3 if name == "scaling_binning" else 0)
    assert probs.isfinite().all()
    json.dumps(calibrator.state(), allow_nan=False)
    # A text that is taken for another class costs much, but not endlessly much.
    assert nll(calibrator.probabilities(logits), (labels + 1) % 3) < 800


@pytest.mark.parametrize("name", FITTED)
def test_ties_and_saturated_logits(name: str) -> None:
    """Softmax gives exact zeros and ones here, and many texts the same logits."""
    logits = torch.tensor([[900.0, 0.0], [0.0, 900.0], [5.0, 5.0], [5.0, 5.0]]).repeat(25, 1)
    labels = torch.tensor([0, 1, 0, 1]).repeat(25)
    labels[:8] = 1 - labels[:8]
    probs = fitted(name, logits, labels).probabilities(logits)
    assert probs.isfinite().all() and (probs >= 0).all()
    assert probs[0].equal(probs[4]) and probs[2].equal(probs[3])


def test_notes_tell_of_few_texts_and_a_negative_slope() -> None:
    few = fitted("matrix", *simulated(60))
    assert any("12 numbers, fitted on 60 texts only" in note for note in few.notes)
    assert not fitted("matrix", *simulated(600)).notes
    logits, labels = simulated(2000)
    logits[:, 1] = -logits[:, 1]
    assert any("slope of class 1 is negative" in n for n in fitted("vector", logits, labels).notes)


def test_probabilities_for_logits_are_why_ece_gets_worse() -> None:
    """Users' most frequent complaint, and what becomes of it: refused, not fitted."""
    logits, labels = simulated(2000, factor=3.0)
    probs = logits.softmax(dim=1)
    for name in FITTED:
        with pytest.raises(InputError, match="these are probabilities"):
            fitted(name, probs, labels)
        fitted(name, probs.clamp(min=1e-12).log(), labels)  # their logarithms are logits
