"""Temperature scaling: closed forms, SciPy's optimum, guards, and its life as plain values."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.calibrators import CALIBRATORS, build_calibrator
from calib_ebm.calibration.errors import ece_top_label, nll, nll_from_logits
from calib_ebm.calibration.temperature import NoCalibration, Temperature
from calib_ebm.errors import InputError

optimize = pytest.importorskip("scipy.optimize", reason="SciPy, of the extra dev")

CONFIGS = sorted(Path(__file__).parents[2].joinpath("conf", "calibrator").glob("*.yaml"))


def simulated(
    texts: int, factor: float = 1.0, classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits that are `factor` times those the labels come from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return factor * logits, labels


def margins(right: int, wrong: int, margin: float) -> tuple[Tensor, Tensor]:
    """Two classes, every logit margin the same, predictions of both classes."""
    texts = right + wrong
    labels = torch.arange(texts) % 2
    predicted = torch.cat([labels[:right], 1 - labels[right:]])
    return margin * torch.nn.functional.one_hot(predicted, 2).double(), labels


@pytest.mark.parametrize(("right", "wrong", "margin"), [(3, 1, 4.0), (97, 3, 0.5), (9, 8, 5.0)])
def test_closed_form_of_equal_margins(right: int, wrong: int, margin: float) -> None:
    """The best confidence sigmoid(margin / T) is the accuracy: T = margin / log(right / wrong)."""
    fitted = Temperature().fit(*margins(right, wrong, margin))
    assert fitted.temperature == pytest.approx(margin / math.log(right / wrong), rel=1e-12)
    assert not fitted.at_bound
    assert fitted.notes == ()


@pytest.mark.parametrize("factor", [0.2, 1.0, 2.5, 20.0])
def test_a_known_factor_is_found(factor: float) -> None:
    logits, labels = simulated(20_000, factor)
    assert Temperature().fit(logits, labels).temperature == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_as_scipy_s_bounded_search(factor: float, seed: int) -> None:
    logits, labels = simulated(60, factor, seed=seed)
    theirs = optimize.minimize_scalar(
        lambda log_t: nll_from_logits(logits / math.exp(log_t), labels).item(),
        bounds=(math.log(0.01), math.log(100)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    ours = Temperature().fit(logits, labels).temperature
    assert ours == pytest.approx(math.exp(theirs.x), rel=1e-6)


@given(
    texts=st.integers(2, 50),
    classes=st.integers(2, 6),
    seed=st.integers(0, 10**6),
    log_factor=st.floats(-4, 4),
)
def test_no_other_temperature_within_the_bounds_is_better(
    texts: int, classes: int, seed: int, log_factor: float
) -> None:
    logits, labels = simulated(texts, math.exp(log_factor), classes, seed)
    if len(labels.unique()) == 1:
        labels[0] = (labels[0] + 1) % classes
    fitted = Temperature().fit(logits, labels)
    best = nll_from_logits(logits / fitted.temperature, labels).item()
    for other in (0.01, 0.1, 0.5, 0.9, 0.99, 1.01, 1.1, 2.0, 10.0, 100.0):
        for temperature in (other, min(max(other * fitted.temperature, 0.01), 100.0)):
            assert best <= nll_from_logits(logits / temperature, labels).item() + 1e-12
    assert fitted.at_bound == (fitted.temperature in (0.01, 100.0)) == bool(fitted.notes)


def test_the_gradient_vanishes_there_and_not_beside_it() -> None:
    logits, labels = simulated(200, 3.0)
    fitted = Temperature().fit(logits, labels).temperature

    def slope(temperature: float) -> float:
        log_t = torch.tensor(math.log(temperature), dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(nll_from_logits(logits / log_t.exp(), labels), log_t)
        return gradient.item()

    assert abs(slope(fitted)) < 1e-12
    assert slope(fitted * 1.01) > 1e-4
    assert slope(fitted / 1.01) < -1e-4


def test_scaling_and_shifting_logits() -> None:
    logits, labels = simulated(100)
    once = Temperature().fit(logits, labels).temperature
    assert Temperature().fit(7 * logits, labels).temperature == pytest.approx(7 * once, rel=1e-10)
    shifted = logits + torch.linspace(-300, 300, 100, dtype=torch.float64)[:, None]
    assert Temperature().fit(shifted, labels).temperature == pytest.approx(once, rel=1e-10)


def test_it_mends_confidence_and_leaves_predictions() -> None:
    logits, labels = simulated(2000, 3.0)
    held_logits, held_labels = simulated(2000, 3.0, seed=1)
    fitted = Temperature().fit(logits, labels)
    before, after = held_logits.softmax(dim=1), fitted.probabilities(held_logits)
    assert torch.equal(before.argmax(dim=1), after.argmax(dim=1))
    assert nll(after, held_labels) < nll(before, held_labels) - 0.1
    assert ece_top_label(after, held_labels) < ece_top_label(before, held_labels) / 3
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.sum(dim=1), torch.ones(2000).double())


def test_half_precision_and_huge_logits() -> None:
    logits, labels = simulated(300, 2.0)
    exact = Temperature().fit(logits, labels).temperature
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert Temperature().fit(logits.to(dtype), labels).temperature == pytest.approx(
            exact, rel=0.01
        )
    # Their best temperature, 2e4, lies above the bound.
    huge = Temperature().fit(1e4 * logits, labels)
    assert huge.temperature == 100
    assert Temperature(upper=1e6).fit(1e4 * logits, labels).temperature == pytest.approx(
        1e4 * exact
    )
    assert huge.probabilities(1e4 * logits).isfinite().all()


@pytest.mark.parametrize(("lower", "upper"), [(0.01, 100.0), (0.3, 49.0), (0.07, 3.0)])
def test_at_a_bound_it_says_so(lower: float, upper: float) -> None:
    logits, labels = margins(10, 0, 2.0)
    separated = Temperature(lower, upper).fit(logits, labels)
    assert separated.temperature == lower
    assert separated.at_bound
    assert "on 10 texts is at its bound" in separated.notes[0]
    assert "without error" in separated.notes[0]
    inverted = Temperature(lower, upper).fit(logits, 1 - labels)
    assert inverted.temperature == upper
    assert inverted.at_bound
    assert "do not predict" in inverted.notes[0]
    again = inverted.fit(*margins(9, 3, 1.0))
    assert not again.at_bound
    assert again.notes == ()


def test_equal_logits_leave_it_at_one() -> None:
    fitted = Temperature().fit(torch.full((4, 2), 3.0), torch.tensor([0, 1, 1, 0]))
    assert fitted.temperature == 1
    assert not fitted.at_bound
    assert "no temperature matters" in fitted.notes[0]


LOGITS, LABELS = simulated(6)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (LOGITS[:0], LABELS[:0], r"on an empty fit half"),
        (LOGITS[:1], LABELS[:1], r"on 1 texts of 1 class"),
        (LOGITS, torch.ones(6).long(), r"on 6 texts of 1 class"),
        (LOGITS, torch.tensor([0, 1, 2, 3, 0, 1]), r"label of row 3 is 3"),
        (LOGITS, torch.tensor([0, 1, 2, -1, 0, 1]), r"label of row 3 is -1"),
        (LOGITS, LABELS[:5], r"Labels of shape \(5,\) for 6 rows"),
        (LOGITS / torch.tensor([1.0, 0.0, 1.0]), LABELS, r"row 0 are not finite"),
        (LOGITS.softmax(dim=1), LABELS, r"these are probabilities"),
        (LOGITS.softmax(dim=1).float(), LABELS, r"these are probabilities"),
    ],
)
def test_what_it_cannot_be_fitted_on(logits: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Temperature().fit(logits, labels)


def test_logarithms_of_probabilities_are_logits_and_so_are_whole_numbers() -> None:
    exact = Temperature().fit(LOGITS, LABELS).temperature
    of_logs = Temperature().fit(LOGITS.log_softmax(dim=1), LABELS).temperature
    assert of_logs == pytest.approx(exact, rel=1e-10)
    assert Temperature().fit(*margins(3, 1, 1.0)).temperature > 0


def test_it_must_be_fitted_first() -> None:
    for use in (
        lambda: Temperature().probabilities(LOGITS),
        lambda: Temperature().state(),
        lambda: Temperature().temperature,
    ):
        with pytest.raises(InputError, match="was not fitted"):
            use()


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (-1.0, 1.0)])
def test_bounds_are_checked(lower: float, upper: float) -> None:
    with pytest.raises(InputError, match="Temperatures from"):
        Temperature(lower, upper)


def test_saved_and_loaded_through_json() -> None:
    for fitted in (
        Temperature().fit(LOGITS, LABELS),
        Temperature(0.5, 3.0).fit(*margins(10, 0, 2.0)),
    ):
        loaded = Temperature.from_state(json.loads(json.dumps(fitted.state())))
        assert torch.equal(loaded.probabilities(LOGITS), fitted.probabilities(LOGITS))
        assert (loaded.at_bound, loaded.notes) == (fitted.at_bound, fitted.notes)
        assert loaded.state() == fitted.state()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "none"}, "saved calibrator is 'none'"),
        ({"temperature": "1"}, "temperature='1'"),
        ({"temperature": None}, "temperature=None"),
        ({"temperature": True}, "temperature=True"),
        ({"temperature": -1.0}, r"saved temperature is -1\.0"),
        ({"temperature": math.nan}, "saved temperature is nan"),
        ({"upper": math.inf}, "Temperatures from"),
    ],
)
def test_a_state_that_is_none(change: dict[str, object], said: str) -> None:
    state = Temperature().fit(LOGITS, LABELS).state() | change
    with pytest.raises(InputError, match=said):
        Temperature.from_state(state)


# ------------------------------------------------------------------------------------- a prior


@pytest.mark.parametrize("prior", [0.5, 4.0, 300.0])
@pytest.mark.parametrize(("texts", "factor"), [(10, 3.0), (200, 0.2), (200, 6.0)])
def test_a_prior_is_as_so_many_texts(prior: float, texts: int, factor: float) -> None:
    """Against SciPy, which is told the sum and nothing of slopes."""
    logits, labels = simulated(texts, factor, seed=3)

    def cost(log_b: float) -> float:
        scale = math.exp(log_b)
        sum_nll = texts * nll_from_logits(scale * logits, labels).item()
        return sum_nll + prior * (scale - 1 - log_b)

    best = optimize.minimize_scalar(cost, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    fitted = Temperature(prior=prior).fit(logits, labels).temperature
    assert math.log(fitted) == pytest.approx(-best.x, abs=1e-4)
    plain = Temperature().fit(logits, labels).temperature
    assert min(1.0, plain) <= fitted <= max(1.0, plain), "between what the texts say and 1"


def test_more_of_a_prior_comes_nearer_to_one_and_more_texts_leave_it() -> None:
    logits, labels = simulated(30, 5.0)
    found = [Temperature(prior=p).fit(logits, labels).temperature for p in (0, 1, 10, 100, 1e9)]
    assert found == sorted(found, reverse=True) and found[0] > 3
    assert found[-1] == pytest.approx(1.0, abs=1e-6)
    many = simulated(20_000, 5.0)
    with_prior, without = (Temperature(prior=p).fit(*many).temperature for p in (4.0, 0.0))
    assert with_prior == pytest.approx(without, rel=2e-3) and with_prior != without


def test_labels_that_are_predicted_without_error_no_longer_lead_to_a_bound() -> None:
    logits, labels = margins(10, 0, 3.0)
    assert Temperature().fit(logits, labels).at_bound
    fitted = Temperature(prior=4.0).fit(logits, labels)
    assert not fitted.at_bound and not fitted.notes
    # N m sigmoid(-b m) = k (1 / b - 1), the slope's closed form.
    inverse = 1 / fitted.temperature
    wrong = 1 / (1 + math.exp(3.0 * inverse))
    assert 10 * 3.0 * wrong == pytest.approx(4.0 * (1 - 1 / inverse), rel=1e-9)


@pytest.mark.parametrize("prior", [-1.0, math.inf, math.nan])
def test_a_prior_is_a_number_of_texts(prior: float) -> None:
    with pytest.raises(InputError, match=r"prior is .*\n.*0 or more"):
        Temperature(prior=prior)


def test_a_prior_is_kept_and_one_of_before_had_none() -> None:
    fitted = Temperature(prior=4.0).fit(*simulated(50, 3.0))
    state = json.loads(json.dumps(fitted.state()))
    assert Temperature.from_state(state).prior == 4.0
    del state["prior"]
    again = Temperature.from_state(state)
    assert (again.prior, again.temperature) == (0.0, fitted.temperature)


def test_no_calibration_is_the_softmax() -> None:
    none = NoCalibration().fit(LOGITS, LABELS)
    torch.testing.assert_close(
        none.probabilities(LOGITS.float()), LOGITS.float().double().softmax(1)
    )
    fitted = Temperature().fit(LOGITS, LABELS)
    assert not torch.allclose(none.probabilities(LOGITS), fitted.probabilities(LOGITS))
    assert NoCalibration.from_state(json.loads(json.dumps(none.state()))).temperature == 1
    with pytest.raises(InputError, match="row 0 are not finite"):
        none.probabilities(torch.tensor([[math.nan, 0.0]]))
    with pytest.raises(InputError, match="saved calibrator is 'temperature'"):
        NoCalibration.from_state(fitted.state())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_its_calibrator(path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(config, dict)
    calibrator: Calibrator = build_calibrator(config)
    assert calibrator.name == path.stem
    probs = calibrator.fit(LOGITS, LABELS).probabilities(LOGITS)
    assert probs.shape == LOGITS.shape
    assert type(calibrator).from_state(calibrator.state()).state() == calibrator.state()
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(calibrator)).parameters.items()
    }
    assert {name: value for name, value in config.items() if name != "name"} == defaults


def test_every_calibrator_has_a_config_and_its_own_name() -> None:
    assert [path.stem for path in CONFIGS] == sorted(CALIBRATORS)
    assert {name: cls.name for name, cls in CALIBRATORS.items()} == {
        name: name for name in CALIBRATORS
    }


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"name": "psychic"}, "calibrator is 'psychic'"),
        ({}, "calibrator is 'None'"),
        ({"name": "none", "lower": 0.1}, r"calibrator=none has options \['lower'\]"),
        ({"name": "temperature", "lower": 3.0, "upper": 1.0}, "Temperatures from 3.0 to 1.0"),
    ],
)
def test_a_config_of_no_calibrator(config: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_calibrator(config)
