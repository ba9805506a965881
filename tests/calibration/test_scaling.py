"""Vector, matrix, structured and Dirichlet scaling against other solvers, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration import affine
from calib_ebm.calibration.affine import (
    GRADIENT_TOLERANCE,
    Problem,
    one_hot_targets,
    solve,
    with_constant,
)
from calib_ebm.calibration.errors import nll
from calib_ebm.calibration.scaling import MatrixScaling, Scaling, VectorScaling
from calib_ebm.calibration.structured import Dirichlet, StructuredMatrix, StructuredVector
from calib_ebm.calibration.temperature import Temperature

optimize = pytest.importorskip("scipy.optimize", reason="SciPy, of the extra dev")
linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn, of the extra dev")

ALL = (VectorScaling, MatrixScaling, StructuredVector, StructuredMatrix, Dirichlet)


def simulated(texts: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are wrong by a slope, a bias and a mixing of classes."""
    generator = torch.Generator().manual_seed(seed)
    true = 1.5 * torch.randn(texts, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(true.softmax(dim=1), 1, generator=generator)[:, 0]
    slopes = torch.linspace(1.0, 3.0, classes, dtype=torch.float64)
    mixed = slopes * true + torch.linspace(-1, 1, classes, dtype=torch.float64)
    return mixed + 0.3 * true.roll(1, dims=1), labels


def by_scipy(start: np.ndarray, objective: Callable[[np.ndarray], float]) -> np.ndarray:
    """Another solver (Newton-like, numerical gradient in SciPy's own hands)."""
    found = optimize.minimize(objective, start.ravel(), method="BFGS", options={"gtol": 1e-7})
    return np.asarray(found.x).reshape(start.shape)


def mean_nll(z: np.ndarray, labels: np.ndarray) -> float:
    high = z.max(axis=1, keepdims=True)
    log_sum = high[:, 0] + np.log(np.exp(z - high).sum(axis=1))
    return float((log_sum - z[np.arange(len(z)), labels]).mean())


def a_problem(texts: int, classes: int, seed: int, log_size: float, full: bool) -> Problem:
    logits, labels = simulated(texts, classes, seed)
    identity = torch.eye(classes, classes + 1, dtype=torch.float64)
    free = torch.ones_like(identity) if full else identity.clone()
    free[:, -1] = 1
    return Problem(
        with_constant(math.exp(log_size) * logits),
        one_hot_targets(labels, classes),
        identity,
        free,
        torch.full_like(identity, 1e-6),
    )


# Nearly told apart without error: the line search alone ends at gradients of 5e-6 and 2e-6.
@example(texts=31, classes=5, seed=31, log_size=1.0, full=True)
@example(texts=13, classes=4, seed=306954, log_size=1.029872647709059, full=True)
@given(
    texts=st.integers(2, 80),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    log_size=st.floats(-3, 3),
    full=st.booleans(),
)
def test_the_gradient_vanishes_and_no_neighbour_is_better(
    texts: int, classes: int, seed: int, log_size: float, full: bool
) -> None:
    problem = a_problem(texts, classes, seed, log_size, full)
    free, identity = problem.free_CD, problem.start_CD
    weight, found = solve(problem)
    best, gradient = problem.loss_and_gradient(weight)
    assert found and gradient.abs().max() <= GRADIENT_TOLERANCE
    assert (weight * (1 - free)).equal(identity * (1 - free))
    away = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * free
    for size in (0.1, 1e-3):
        assert problem.loss_and_gradient(weight + size * away)[0] >= best - 1e-9


@pytest.mark.parametrize("full", [False, True])
def test_the_second_derivatives_are_autograd_s(full: bool) -> None:
    problem = a_problem(40, 3, 5, 0.3, full)
    weight = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = torch.autograd.functional.hessian(lambda w: problem.loss_and_gradient(w)[0], weight)
    free = problem.free_CD.flatten().bool()
    theirs = whole.reshape(12, 12)[free][:, free]
    torch.testing.assert_close(problem.hessian(weight), theirs)


def test_more_entries_than_second_derivatives_can_be_had_of_are_left_to_the_line_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = a_problem(31, 5, 31, 1.0, True)
    monkeypatch.setattr(affine, "_NEWTON_ENTRIES", 29)
    weight, found = solve(problem)
    gradient = problem.loss_and_gradient(weight)[1]
    assert not found and GRADIENT_TOLERANCE < gradient.abs().max() < 1e-4


def test_the_analytic_gradient_is_autograd_s() -> None:
    logits, labels = simulated(50)
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    start, ridge = torch.randn(2, 3, 4, dtype=torch.float64)
    problem = Problem(
        with_constant(logits), one_hot_targets(labels, 3), start, torch.ones(3, 4), ridge.abs()
    )
    loss, ours = problem.loss_and_gradient(weight)
    (theirs,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(ours.detach(), theirs)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_matrix_scaling_is_unpenalised_logistic_regression(classes: int) -> None:
    logits, labels = simulated(3000, classes)
    theirs = linear_model.LogisticRegression(C=1e9, tol=1e-9, max_iter=5000)
    theirs.fit(logits.numpy(), labels.numpy())
    ours = MatrixScaling().fit(logits, labels).probabilities(logits).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(logits.numpy()), atol=2e-4)
    vector = VectorScaling().fit(logits, labels).probabilities(logits).numpy()
    if classes > 2:  # the control
        assert np.abs(vector - ours).max() > 0.01


@pytest.mark.parametrize("classes", [2, 4])
def test_vector_scaling_is_scipy_s_optimum(classes: int) -> None:
    logits, labels = simulated(400, classes)
    z, y = logits.numpy(), labels.numpy()
    theirs = by_scipy(
        np.vstack((np.ones(classes), np.zeros(classes))),
        lambda v: mean_nll(z * v[:classes] + v[classes:], y),
    )
    ours = VectorScaling(ridge=0.0).fit(logits, labels)
    affine = ours.affine(classes)
    assert affine is not None
    np.testing.assert_allclose(affine.weight_CC.diagonal(), theirs[0], atol=1e-3)
    assert affine.weight_CC.equal(affine.weight_CC.diagonal().diag())
    assert nll(ours.probabilities(logits), labels).item() <= mean_nll(z * theirs[0] + theirs[1], y)
    # Biases are known up to a constant.
    np.testing.assert_allclose(np.diff(affine.bias_C), np.diff(theirs[1]), atol=2e-3)


def test_known_slopes_and_biases_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(60_000, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    slopes, biases = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.3, -0.5, 0.2])
    fitted = VectorScaling().fit((true - biases) / slopes, labels).affine(3)
    assert fitted is not None
    torch.testing.assert_close(fitted.weight_CC.diagonal().float(), slopes, atol=0.04, rtol=0)
    torch.testing.assert_close(
        (fitted.bias_C - fitted.bias_C.mean()).float(), biases, atol=0.04, rtol=0
    )


@pytest.mark.parametrize("kind", [StructuredVector, StructuredMatrix, Dirichlet])
@pytest.mark.parametrize("texts", [40, 400])
def test_the_penalised_ones_are_scipy_s_optimum(kind: type[Scaling], texts: int) -> None:
    classes = 3
    logits, labels = simulated(texts, classes)
    ours = kind().fit(logits, labels)
    if kind is Dirichlet:
        x = logits.log_softmax(1).numpy()
    else:
        probs = (logits / Temperature().fit(logits, labels).temperature).softmax(1).numpy()
        x = np.log((texts * probs + 1 / classes) / (texts + 1))
    eye = np.eye(classes)

    def penalty(w: np.ndarray, b: np.ndarray) -> float:
        off, on = ((w * (1 - eye)) ** 2).sum(), ((np.diag(w) - 1) ** 2).sum()
        if kind is Dirichlet:
            odir = 0.01 / (classes * (classes - 1)) * off + 0.01 / classes * (b**2).sum()
            return odir + 1e-6 * (off + on + (b**2).sum())
        return classes / texts * ((b**2).sum() + on + (classes - 1) * off)

    def objective(v: np.ndarray) -> float:
        w, b = v[:9].reshape(3, 3), v[9:]
        w = w * eye if kind is StructuredVector else w
        return mean_nll(x @ w.T + b, labels.numpy()) + penalty(w, b)

    theirs = by_scipy(np.concatenate((eye.ravel(), np.zeros(3))), objective)
    w, b = theirs[:9].reshape(3, 3), theirs[9:]
    z = x @ (w * eye if kind is StructuredVector else w).T + b
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours.probabilities(logits).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("texts", [60, 500])
def test_the_structured_ones_are_probmetrics_s(classes: int, texts: int) -> None:
    """Where it is installed with numba, which its import needs; 200 MB are no extra of ours."""
    theirs = pytest.importorskip("probmetrics.calibrators", reason="probmetrics and numba")
    logits, labels = simulated(texts, classes)
    probs = logits.softmax(1).numpy()
    for ours, other in (
        (StructuredVector(), theirs.SVSCalibrator(print_init_info=False)),
        (StructuredMatrix(), theirs.SMSCalibrator(print_init_info=False)),
    ):
        other.fit(probs, labels.numpy())
        got = ours.fit(logits, labels).probabilities(logits).numpy()
        np.testing.assert_allclose(got, other.predict_proba(probs), atol=2e-3)


@pytest.mark.parametrize("kind", [StructuredVector, StructuredMatrix])
def test_a_strong_ridge_leaves_temperature_scaling(kind: type[StructuredVector]) -> None:
    logits, labels = simulated(300)
    options = dict.fromkeys(kind.options, 1e6)
    scaled = Temperature().fit(logits, labels).probabilities(logits)
    strong = kind(**options).fit(logits, labels).probabilities(logits)
    # But for one text's worth of the uniform distribution.
    torch.testing.assert_close(strong, (300 * scaled + 1 / 3) / 301, atol=1e-5, rtol=0)
    assert (kind().fit(logits, labels).probabilities(logits) - strong).abs().max() > 0.02


def test_ridges_help_where_texts_are_few() -> None:
    """Mean NLL on unseen texts over 20 fit halves of 40 texts of 5 classes."""
    held_logits, held_labels = simulated(4000, 5, seed=1000)
    mean = {}
    for kind in (MatrixScaling, StructuredMatrix):
        mean[kind] = np.mean(
            [
                nll(kind().fit(*simulated(40, 5, seed)).probabilities(held_logits), held_labels)
                for seed in range(20)
            ]
        )
    assert mean[StructuredMatrix] < mean[MatrixScaling] - 0.1


@pytest.mark.parametrize("kind", ALL)
def test_the_affine_map_gives_the_probabilities(kind: type[Scaling]) -> None:
    logits, labels = simulated(100)
    fitted = kind().fit(logits, labels)
    affine = fitted.affine(3)
    assert (affine is None) == fitted.of_log_probs
    if affine is not None:
        torch.testing.assert_close(affine(logits).softmax(1), fitted.probabilities(logits))
