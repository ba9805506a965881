"""The estimators against arithmetic by hand, their edge rules, properties and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration import errors
from calib_ebm.calibration.accuracy import accuracy, f1, mcc
from calib_ebm.calibration.bins import mean_gap
from calib_ebm.calibration.errors import (
    brier,
    ece_classwise,
    ece_pooled,
    ece_top_label,
    nll,
    nll_from_logits,
    pointwise_error,
    reliability_bins,
    true_calibration_error,
)
from calib_ebm.errors import InputError

ECES = (ece_top_label, ece_classwise, ece_pooled)
ALL = (*ECES, brier, nll, accuracy, mcc, f1)


def double(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def binary(confidences: list[float]) -> Tensor:
    """Rows whose predicted class is 0, with these confidences."""
    return double([[p, 1 - p] for p in confidences])


# Three classes, four texts: every row is a permutation of .72 .22 .06, which lie inside three bins.
PROBS = double([[0.72, 0.22, 0.06], [0.72, 0.22, 0.06], [0.06, 0.72, 0.22], [0.22, 0.06, 0.72]])
LABELS = torch.tensor([0, 1, 1, 0])


def test_four_figures_called_ece_are_four_figures() -> None:
    top_label = 4 / 4 * abs(0.72 - 2 / 4)  # two of four predictions are right
    class_0 = 2 / 4 * abs(0.72 - 1 / 2) + 1 / 4 * abs(0.06 - 0) + 1 / 4 * abs(0.22 - 1)
    class_1 = 2 / 4 * abs(0.22 - 1 / 2) + 1 / 4 * abs(0.72 - 1) + 1 / 4 * abs(0.06 - 0)
    class_2 = 2 / 4 * abs(0.06 - 0) + 1 / 4 * abs(0.22 - 0) + 1 / 4 * abs(0.72 - 0)
    pooled = (
        4 / 12 * abs(0.72 - 2 / 4)  # texts 0 and 2 have the label of their .72
        + 4 / 12 * abs(0.22 - 2 / 4)  # texts 1 and 3 that of their .22
        + 4 / 12 * abs(0.06 - 0 / 4)
    )
    poscal = class_0 + class_1 + class_2
    expected = [top_label, poscal / 3, pooled, poscal]
    assert expected == pytest.approx([0.22, 0.27, 0.56 / 3, 0.81])
    ours = [ece(PROBS, LABELS).item() for ece in ECES]
    assert [*ours, 3 * ours[1]] == pytest.approx(expected, abs=1e-15)
    assert min(abs(a - b) for i, a in enumerate(expected) for b in expected[:i]) > 0.03


def test_two_texts_of_one_bin_are_averaged_before_the_gap() -> None:
    probs = binary([0.91, 0.93, 0.62])
    labels = torch.tensor([0, 1, 0])
    by_hand = 2 / 3 * abs((0.91 + 0.93) / 2 - 1 / 2) + 1 / 3 * abs(0.62 - 1)
    assert ece_top_label(probs, labels).item() == pytest.approx(by_hand)
    text_by_text = (abs(0.91 - 1) + abs(0.93 - 0) + abs(0.62 - 1)) / 3
    assert ece_top_label(probs, labels).item() != pytest.approx(text_by_text, abs=0.01)


def test_reliability_bins_are_the_ece_and_leave_empty_bins_open() -> None:
    bins = reliability_bins(binary([0.91, 0.93, 0.62]), torch.tensor([0, 1, 0]), bins=10)
    assert bins.count_M.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 2]
    assert bins.confidence_M[[6, 9]].tolist() == pytest.approx([0.62, 0.92])
    assert bins.frequency_M[[6, 9]].tolist() == pytest.approx([1.0, 0.5])
    assert bins.confidence_M.isnan().sum() == bins.frequency_M.isnan().sum() == 8
    assert bins.edges_M1.tolist() == [i / 10 for i in range(11)]
    gap = (bins.confidence_M - bins.frequency_M).abs().nan_to_num() * bins.count_M / 3
    same = ece_top_label(binary([0.91, 0.93, 0.62]), torch.tensor([0, 1, 0]), bins=10)
    assert gap.sum().item() == pytest.approx(same.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("p", "bin_of_20"),
    [
        (0.0, 0),
        (1e-09, 0),
        (0.05, 0),
        (0.0501, 1),
        (0.15, 2),
        (0.3, 5),
        (0.6, 11),
        (0.6001, 12),
        (0.95, 18),
        (0.9501, 19),
        (1.0, 19),
    ],
)
def test_an_edge_belongs_to_the_bin_below(p: float, bin_of_20: int, dtype: torch.dtype) -> None:
    """Column 0 of the classwise histograms shows every p, not only confidences."""
    probs = torch.tensor([[p, 1 - p]], dtype=dtype)
    sums = errors.binned_sums(
        *errors.classwise_pairs(probs, torch.tensor([0])), errors.equal_width_edges(20, probs)
    )
    assert sums.count_GM[0].nonzero().item() == bin_of_20


@pytest.mark.parametrize("bins", [1, 2, 3, 7, 10, 15, 20, 100, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_edge_of_every_number_of_bins(bins: int, dtype: torch.dtype) -> None:
    written = torch.tensor([m / bins for m in range(bins + 1)], dtype=dtype)
    index = errors.equal_width_edges(bins, written)
    assert torch.equal(index, written)
    expected = [0, *range(bins)]
    probs = torch.stack([written, 1 - written], dim=1)
    sums = errors.binned_sums(probs[:, :1], torch.zeros(bins + 1, 1), index)
    assert sums.count_GM[0].tolist() == [expected.count(m) for m in range(bins)]


def test_the_edge_rule_changes_a_figure() -> None:
    """.95 lies in (.90, .95] with .91: one bin, whose errors cancel. Above the edge they do not."""
    labels = torch.tensor([0, 1])
    together = abs((0.95 + 0.91) / 2 - 1 / 2)
    apart = (abs(0.9501 - 1) + abs(0.91 - 0)) / 2
    assert ece_top_label(binary([0.95, 0.91]), labels).item() == pytest.approx(together)
    assert ece_top_label(binary([0.9501, 0.91]), labels).item() == pytest.approx(apart)


def test_saturated_probabilities() -> None:
    probs = binary([1.0, 1.0, 1.0, 1.0])
    assert ece_top_label(probs, torch.tensor([0, 0, 0, 1])).item() == 1 / 4
    assert ece_classwise(probs, torch.tensor([0, 0, 0, 1])).item() == 1 / 4
    assert ece_top_label(probs, torch.tensor([1, 1, 1, 1])).item() == 1


def test_labels_of_one_class() -> None:
    probs, labels = binary([0.8, 0.8]), torch.tensor([0, 0])
    assert ece_top_label(probs, labels).item() == pytest.approx(0.2)
    assert mcc(probs, labels).item() == 0
    assert f1(probs, labels).item() == 0
    assert accuracy(probs, labels).item() == 1


def test_proper_scores_by_hand() -> None:
    probs = double([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    labels = torch.tensor([0, 2])
    by_hand = ((0.5**2 + 2 * 0.25**2) + (0.1**2 + 0.8**2 + 0.9**2)) / 2
    assert brier(probs, labels).item() == pytest.approx(by_hand)
    assert nll(probs, labels).item() == pytest.approx((math.log(2) + math.log(10)) / 2)


def test_nll_is_finite_at_zero_and_exact_from_logits() -> None:
    assert nll(binary([1.0]), torch.tensor([1])).item() == pytest.approx(708.396, abs=1e-3)
    logits = double([[2000.0, 0.0]])
    assert nll(logits.softmax(dim=1), torch.tensor([1])).item() < 709
    assert nll_from_logits(logits, torch.tensor([1])).item() == 2000
    assert nll_from_logits(logits.bfloat16(), torch.tensor([1])).item() == 2000
    mild = double([[1.0, 0.0], [0.3, 0.7]])
    labels = torch.tensor([1, 0])
    ours = nll(mild.softmax(dim=1), labels)
    torch.testing.assert_close(nll_from_logits(mild, labels), ours, rtol=1e-14, atol=0)


def test_class_metrics_by_hand() -> None:
    """3 hits and 1 miss of class 0, 2 hits and 2 misses of class 1."""
    predicted, labels = [0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]
    probs = double([[0.9, 0.1] if c == 0 else [0.1, 0.9] for c in predicted])
    hits, misses, false = 2, 2, 1
    assert accuracy(probs, torch.tensor(labels)).item() == 5 / 8
    assert f1(probs, torch.tensor(labels)).item() == 2 * hits / (2 * hits + misses + false)
    by_hand = (2 * 3 - 1 * 2) / math.sqrt(3 * 4 * 4 * 5)
    assert mcc(probs, torch.tensor(labels)).item() == pytest.approx(by_hand)


def test_f1_of_two_classes_is_that_of_class_one() -> None:
    probs, labels = binary([0.9, 0.9, 0.2]), torch.tensor([0, 1, 1])
    of_class_1, of_class_0 = 2 * 1 / (2 * 1 + 1), 2 * 1 / (2 * 1 + 1)
    assert f1(probs, labels).item() == pytest.approx(of_class_1)
    swapped = f1(probs.flip(1), 1 - labels)
    assert swapped.item() == pytest.approx(of_class_0)
    lopsided = torch.tensor([0, 0, 0])
    assert f1(probs, lopsided).item() == 0
    assert f1(probs.flip(1), 1 - lopsided).item() == pytest.approx(2 * 2 / (2 * 2 + 1))


def test_true_calibration_error_needs_no_labels_and_has_no_floor() -> None:
    probs = binary([0.9, 0.92, 0.7])
    assert true_calibration_error(probs, probs).item() == 0
    assert pointwise_error(probs, probs).item() == 0
    truth = binary([0.85, 0.97, 0.6])
    one_bin = 1 / 3 * abs(0.9 - 0.85) + 1 / 3 * abs(0.92 - 0.97) + 1 / 3 * abs(0.7 - 0.6)
    assert true_calibration_error(probs, truth).item() == pytest.approx(one_bin)  # .9 is an edge
    in_one_bin = binary([0.91, 0.92, 0.7])
    cancelling = 2 / 3 * abs((0.91 + 0.92) / 2 - (0.85 + 0.97) / 2) + 1 / 3 * abs(0.7 - 0.6)
    assert true_calibration_error(in_one_bin, truth).item() == pytest.approx(cancelling)
    pointwise = (abs(0.91 - 0.85) + abs(0.92 - 0.97) + abs(0.7 - 0.6)) / 3
    assert pointwise_error(in_one_bin, truth).item() == pytest.approx(pointwise)


def test_the_exact_probability_is_that_of_the_predicted_class() -> None:
    """The truth prefers class 1; it is read where the model prefers class 0."""
    error = pointwise_error(binary([0.8]), binary([0.3])).item()
    assert error == pytest.approx(0.8 - 0.3)
    assert error != pytest.approx(0.8 - 0.7)


def test_the_labelled_ece_tends_to_the_true_one() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(200_000, generator=generator, dtype=torch.float64) * 0.4 + 0.5
    probs = binary((truth + 0.05).tolist())
    labels = (torch.rand(len(truth), generator=generator) > truth).long()
    exact = true_calibration_error(probs, torch.stack([truth, 1 - truth], dim=1)).item()
    assert exact == pytest.approx(0.05)
    assert ece_top_label(probs, labels).item() == pytest.approx(exact, abs=0.004)
    assert ece_top_label(probs[:100], labels[:100]).item() > exact + 0.03  # the floor of 100 texts


# --- Properties ---


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Probabilities of up to 40 texts and 5 classes, half of them whole twentieths: bin edges."""
    classes, texts = draw(st.integers(2, 5)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0, 60.0]))
    probs = (torch.randn(texts, classes, generator=generator).double() * scale).softmax(dim=1)
    if draw(st.booleans()):
        cuts = torch.randint(21, (texts, classes - 1), generator=generator).sort(dim=1).values
        ends = torch.tensor([[0], [20]]).expand(2, texts).T
        probs = torch.cat([ends[:, :1], cuts, ends[:, 1:]], dim=1).diff(dim=1).double() / 20
    labels = torch.randint(classes, (texts,), generator=generator)
    return probs.to(draw(st.sampled_from([torch.float32, torch.float64]))), labels


@given(predictions(), st.integers(1, 30))
def test_bounds_and_order(case: tuple[Tensor, Tensor], bins: int) -> None:
    probs, labels = case
    top, classwise, pooled = (ece(probs, labels, bins).item() for ece in ECES)
    rounding = 1e-6  # of float32 rows that sum to one
    assert 0 <= top <= 1 + rounding
    assert 0 <= pooled <= classwise + rounding  # errors of classes may cancel in one histogram
    assert classwise <= 2 / probs.shape[1] + rounding  # mean |p - onehot| over classes
    assert 0 <= brier(probs, labels) <= 2 + rounding
    assert 0 <= nll(probs, labels) < math.inf
    assert -1 - rounding <= mcc(probs, labels) <= 1 + rounding
    assert 0 <= f1(probs, labels) <= 1


@given(predictions(), st.randoms(use_true_random=False))
def test_the_order_of_texts_does_not_matter(case: tuple[Tensor, Tensor], random: object) -> None:
    probs, labels = case
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis types it as object
    for figure in ALL:
        mixed = figure(probs[order], labels[order])
        torch.testing.assert_close(mixed, figure(probs, labels), rtol=1e-12, atol=1e-12)


@given(predictions())
def test_one_bin_is_mean_confidence_against_accuracy(case: tuple[Tensor, Tensor]) -> None:
    probs, labels = case
    confidence = probs.double().max(dim=1).values.mean()
    expected = (confidence - accuracy(probs, labels)).abs()
    torch.testing.assert_close(ece_top_label(probs, labels, 1), expected, rtol=0, atol=1e-12)
    assert ece_pooled(probs.double(), labels, 1).item() == pytest.approx(0, abs=1e-6)


@given(predictions(), st.integers(1, 30))
def test_merging_bins_never_raises_an_ece(case: tuple[Tensor, Tensor], bins: int) -> None:
    probs, labels = case
    for ece in ECES:
        assert ece(probs, labels, bins) <= ece(probs, labels, 2 * bins) + 1e-9


@given(predictions())
def test_certain_and_right_is_zero_certain_and_wrong_is_one(case: tuple[Tensor, Tensor]) -> None:
    probs, labels = case
    classes = probs.shape[1]
    right = torch.nn.functional.one_hot(labels, classes).double()
    wrong = right.roll(1, dims=1)
    for ece in ECES:
        assert ece(right, labels) == 0
    assert brier(right, labels) == nll(right, labels) == 0
    assert ece_top_label(wrong, labels) == 1
    assert brier(wrong, labels) == 2


@given(predictions())
def test_two_classes_binned_by_either_class_agree(case: tuple[Tensor, Tensor]) -> None:
    """With bins symmetric about 1/2 and off their edges, both classes show the same gaps."""
    probs, labels = case
    p = probs[:, 0].double() * 0.98 + 0.0101
    two = torch.stack([p, 1 - p], dim=1)
    labels = labels.clamp(max=1)
    once = mean_gap(
        errors.binned_sums(two[:, :1], labels[:, None] == 0, errors.equal_width_edges(20, two))
    )
    torch.testing.assert_close(ece_classwise(two, labels), once, rtol=0, atol=1e-12)


@given(predictions(), st.integers(1, 30))
def test_pointwise_bounds_the_binned_truth(case: tuple[Tensor, Tensor], bins: int) -> None:
    probs, _ = case
    truth = probs.flip(0)
    binned = true_calibration_error(probs, truth, bins)
    assert binned <= pointwise_error(probs, truth) + 1e-12


# --- Refusals ---


GOOD, ONES = binary([0.9, 0.6]), torch.tensor([0, 1])


@pytest.mark.parametrize("figure", ALL)
@pytest.mark.parametrize(
    ("probs", "labels", "said"),
    [
        (double([[2.0, -1.0], [0.5, 0.5]]), ONES, r"row 0 hold -1: these look like logits"),
        (double([[0.5, 0.5], [0.3, 0.8]]), ONES, r"row 1 sum to 1\.1"),
        (double([[0.5, 0.5], [math.nan, 0.5]]), ONES, r"row 1 hold NaN"),
        (double([[0.5, 0.5], [math.inf, 0.5]]), ONES, r"row 1 sum to inf"),
        (GOOD[:0], ONES[:0], r"no text at all"),
        (GOOD[:, 0], ONES, r"of shape \(2,\)"),
        (GOOD[:, :1], ONES, r"of shape \(2, 1\)"),
        (GOOD.bfloat16(), ONES, r"of type torch\.bfloat16"),
        (GOOD.long(), ONES, r"of type torch\.int64"),
        (GOOD.tolist(), ONES, r"of type list"),
        (GOOD, torch.tensor([0, 2]), r"label of row 1 is 2, with 2 classes"),
        (GOOD, torch.tensor([-1, 1]), r"label of row 0 is -1, with 2 classes"),
        (GOOD, torch.tensor([0, 1, 1]), r"Labels of shape \(3,\) for 2 rows"),
        (GOOD, torch.tensor([[1, 0], [0, 1]]), r"Labels of shape \(2, 2\) for 2 rows"),
        (GOOD, torch.tensor([0.0, 1.0]), r"Labels of type torch\.float32"),
        (GOOD, [0, 1], r"Labels of type list"),
    ],
)
def test_what_is_no_probability_or_label_is_named(
    figure: Callable[..., Tensor], probs: Tensor, labels: Tensor, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        figure(probs, labels)
    assert caught.value.allowed
    assert caught.value.to_do
    assert figure(GOOD, ONES).isfinite()


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, "20"])
@pytest.mark.parametrize("ece", [*ECES, reliability_bins])
def test_bins_are_a_whole_number(ece: Callable[..., Tensor], bins: int) -> None:
    with pytest.raises(InputError, match="bins is"):
        ece(GOOD, ONES, bins)


def test_rows_may_be_off_by_printed_decimals_but_no_more() -> None:
    printed = double([[0.333, 0.333, 0.333], [0.667, 0.167, 0.167]])
    assert ece_top_label(printed, ONES).isfinite()
    with pytest.raises(InputError, match=r"sum to 0\.99"):
        ece_top_label(double([[0.33, 0.33, 0.33], [0.667, 0.167, 0.167]]), ONES)


@pytest.mark.parametrize("figure", [true_calibration_error, pointwise_error])
def test_truth_is_checked_too(figure: Callable[..., Tensor]) -> None:
    with pytest.raises(InputError, match=r"true probabilities of row 1 sum to 1\.2"):
        figure(GOOD, double([[0.5, 0.5], [0.6, 0.6]]))
    with pytest.raises(InputError, match=r"Probabilities of \(2, 2\), true ones of \(1, 2\)"):
        figure(GOOD, GOOD[:1])


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (double([[1.0, math.nan]]), torch.tensor([0]), "row 0 are not finite"),
        (double([[1.0, math.inf]]), torch.tensor([0]), "row 0 are not finite"),
        (double([[1.0, 2.0]]), torch.tensor([2]), "label of row 0 is 2"),
        (torch.tensor([[1, 2]]), torch.tensor([0]), "logits are torch.int64"),
        (torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), r"of shape \(2,\)"),
        (torch.zeros(0, 2), torch.tensor([], dtype=torch.int64), r"Logits of shape \(0, 2\)"),
    ],
)
def test_logits_are_checked(logits: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        nll_from_logits(logits, labels)


def test_labels_of_any_whole_type_and_figures_in_float64() -> None:
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        for figure in ALL:
            given_as = figure(PROBS.float(), LABELS.to(dtype))
            assert given_as.dtype == torch.float64
            assert given_as.ndim == 0
            torch.testing.assert_close(given_as, figure(PROBS, LABELS), rtol=0, atol=1e-6)
