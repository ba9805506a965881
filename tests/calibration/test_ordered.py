"""Equal mass, the sweep and Kolmogorov-Smirnov: by hand, by naive code, and over many columns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calib_ebm.calibration.bins import equal_mass_edges, mass_ranks
from calib_ebm.calibration.errors import (
    ece_classwise,
    ece_debiased_l2,
    ece_pooled,
    ece_top_label,
    pooled_pairs,
)
from calib_ebm.calibration.ordered import (
    Ordered,
    debiased_each,
    ece_equal_mass,
    ece_sweep,
    equal_mass_each,
    ks_each,
    ks_error,
    ordered,
    sweep_each,
)
from calib_ebm.calibration.selective import aurc_each, e_aurc_each
from calib_ebm.calibration.smooth import smooth_each
from calib_ebm.errors import InputError

NORMS = ("l1", "l2", "max")
FIGURES = [
    ece_top_label,
    ece_classwise,
    ece_pooled,
    ece_debiased_l2,
    ece_equal_mass,
    ece_sweep,
    ks_error,
]


def sure(confidences: list[float], right: list[int]) -> tuple[Tensor, Tensor]:
    """Two classes, class 0 predicted with these confidences, and right where told."""
    confidence = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([confidence, 1 - confidence], dim=1), 1 - torch.tensor(right)


def drawn(texts: int, seed: int, decimals: int | None = None) -> tuple[Tensor, Tensor]:
    """Overconfident; rounded, many confidences are equal."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / 1.5).softmax(dim=1), 1, generator=generator)[:, 0]
    probs = logits.softmax(dim=1)
    if decimals is not None:
        first = probs[:, :2].round(decimals=decimals)
        probs = torch.cat([first, 1 - first.sum(dim=1, keepdim=True)], dim=1).clamp(min=0)
    return probs, labels


# --- Equal mass ---


@given(st.integers(1, 200), st.integers(1, 40))
def test_ranks_are_those_of_array_split(count: int, bins: int) -> None:
    sizes = [len(part) for part in np.array_split(np.arange(count), bins)]
    assert mass_ranks(count, bins).tolist() == np.cumsum(sizes).tolist()


def test_equal_mass_by_hand() -> None:
    probs, labels = sure([0.6, 0.7, 0.8, 0.9, 1.0], [1, 0, 1, 0, 1])
    # Two bins: three texts, then two.
    gaps = abs((0.6 + 0.7 + 0.8) / 3 - 2 / 3), abs((0.9 + 1.0) / 2 - 1 / 2)
    expected = {
        "l1": 3 / 5 * gaps[0] + 2 / 5 * gaps[1],
        "l2": (3 / 5 * gaps[0] ** 2 + 2 / 5 * gaps[1] ** 2) ** 0.5,
        "max": max(gaps),
    }
    for norm in NORMS:
        figure = ece_top_label(probs, labels, 2, binning="mass", norm=norm)
        assert figure.item() == pytest.approx(expected[norm], abs=1e-12), norm
        assert ece_equal_mass(probs, labels, 2, norm=norm).item() == pytest.approx(expected[norm])
    equal_width = ece_top_label(probs, labels, 2, norm="l2").item()
    assert equal_width != pytest.approx(expected["l2"], abs=0.01)


def test_equal_confidences_are_not_parted() -> None:
    """Of four texts at .8 the cut after the second would depend on their order."""
    probs, labels = sure([0.8, 0.8, 0.8, 0.8, 0.9, 0.9], [1, 0, 1, 0, 1, 0])
    by_hand = 4 / 6 * abs(0.8 - 1 / 2) + 2 / 6 * abs(0.9 - 1 / 2)
    for order in (range(6), [1, 3, 5, 0, 2, 4]):
        index = torch.tensor(list(order))
        figure = ece_equal_mass(probs[index], labels[index], 3).item()
        assert figure == pytest.approx(by_hand)
    assert equal_mass_edges(probs[:, :1], 3).tolist() == [[0, 0.8, 0.8, 1]]


@given(
    texts=st.integers(1, 60),
    bins=st.integers(1, 70),
    seed=st.integers(0, 10**4),
    decimals=st.sampled_from([None, 1, 2]),
    norm=st.sampled_from(NORMS),
)
def test_by_edges_and_by_ranks_is_the_same(
    texts: int, bins: int, seed: int, decimals: int | None, norm: str
) -> None:
    probs, labels = drawn(texts, seed, decimals)
    by_edges = ece_top_label(probs, labels, bins, binning="mass", norm=norm)  # type: ignore[arg-type]
    by_ranks = ece_equal_mass(probs, labels, bins, norm=norm)  # type: ignore[arg-type]
    assert by_ranks.item() == pytest.approx(by_edges.item(), abs=1e-12)
    debiased = debiased_each(ordered(probs, labels), bins)[0].item()
    # A root: what is 1e-17 below it may be 3e-9 in it.
    assert debiased == pytest.approx(ece_debiased_l2(probs, labels, bins).item(), abs=1e-7)


@given(texts=st.integers(1, 60), bins=st.integers(1, 30), seed=st.integers(0, 10**4))
def test_norms_are_ordered_and_debiasing_takes_away(texts: int, bins: int, seed: int) -> None:
    probs, labels = drawn(texts, seed)
    for ece in (ece_top_label, ece_classwise, ece_pooled):
        for binning in ("width", "mass"):
            l1, l2, largest = (
                ece(probs, labels, bins, binning=binning, norm=norm).item()  # type: ignore[arg-type]
                for norm in NORMS
            )
            assert l1 <= l2 + 1e-12 <= largest + 2e-12
    l2 = ece_top_label(probs, labels, bins, binning="mass", norm="l2").item()
    assert 0 <= ece_debiased_l2(probs, labels, bins).item() <= l2 + 1e-12


def test_debiased_by_hand() -> None:
    probs, labels = sure([0.8, 0.8, 0.8, 0.8, 0.95], [1, 0, 0, 0, 0])
    # A bin of one text says nothing; the other's frequency is 1/4.
    square = 4 / 5 * ((0.8 - 1 / 4) ** 2 - 1 / 4 * 3 / 4 / 3) + 1 / 5 * 0
    assert ece_debiased_l2(probs, labels, 2).item() == pytest.approx(square**0.5)
    calibrated = sure([0.5, 0.5], [1, 0])
    assert ece_debiased_l2(*calibrated, bins=1).item() == 0


def test_debiasing_removes_the_bias_of_the_square() -> None:
    """A perfectly calibrated model: the mean debiased square is near zero, the plain one not."""
    debiased, plain = [], []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        confidence = 0.5 + torch.rand(100, generator=generator, dtype=torch.float64) / 2
        right = torch.rand(100, generator=generator, dtype=torch.float64) < confidence
        probs = torch.stack([confidence, 1 - confidence], dim=1)
        columns = ordered(probs, (~right).long())
        plain.append(equal_mass_each(columns, 10, "l2").item() ** 2)
        sums = columns.count_RU, columns.right_RU
        assert int(sums[0].sum()) == 100
        debiased.append(debiased_each(columns, 10).item() ** 2)
    # Clamped at zero, half of the debiased squares are lost below; the mean of the rest is small.
    assert sum(debiased) / 400 < 0.4 * sum(plain) / 400
    assert sum(value == 0 for value in debiased) > 100


# --- The sweep ---


def naive_sweep(confidence: np.ndarray, right: np.ndarray) -> tuple[float, int]:
    """The paper's algorithm, word for word, for distinct confidences."""
    order = np.argsort(confidence)
    confidence, right = confidence[order], right[order]

    def binned(bins: int) -> list[tuple[int, float, float]]:
        parts = zip(np.array_split(confidence, bins), np.array_split(right, bins), strict=True)
        return [(len(c), c.mean(), r.mean()) for c, r in parts]

    best = 1
    for bins in range(2, len(right) + 1):
        frequencies = [frequency for _, _, frequency in binned(bins)]
        if any(b < a for a, b in itertools.pairwise(frequencies)):
            break
        best = bins
    return sum(n * abs(c - r) for n, c, r in binned(best)) / len(right), best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("texts", [1, 2, 7, 60, 500])
def test_the_sweep_as_the_paper_s_algorithm(texts: int, seed: int) -> None:
    probs, labels = drawn(texts, seed)
    right = (probs.argmax(dim=1) == labels).numpy().astype(float)
    expected, _ = naive_sweep(probs.amax(dim=1).numpy(), right)
    assert ece_sweep(probs, labels).item() == pytest.approx(expected, abs=1e-12)


@given(
    wrong=st.sets(st.integers(0, 59), max_size=4),
    texts=st.integers(20, 60),
    upside_down=st.booleans(),
)
def test_the_sweep_of_few_errors_goes_far(wrong: set[int], texts: int, upside_down: bool) -> None:
    """Where nearly all are right (or wrong) it may end at tens of bins, or at one per text."""
    right = [int((place not in wrong) ^ upside_down) for place in range(texts)]
    confidence = torch.linspace(0.51, 0.99, texts, dtype=torch.float64)
    expected, _ = naive_sweep(confidence.numpy(), np.array(right, dtype=float))
    ours = ece_sweep(*sure(confidence.tolist(), right)).item()
    assert ours == pytest.approx(expected, abs=1e-12)


def test_the_sweep_chooses_several_bins_somewhere() -> None:
    chosen = []
    for seed in range(8):
        probs, labels = drawn(500, seed)
        right = (probs.argmax(dim=1) == labels).numpy().astype(float)
        chosen.append(naive_sweep(probs.amax(dim=1).numpy(), right)[1])
    assert min(chosen) >= 2 and len(set(chosen)) > 2


def test_a_set_that_rises_to_the_end_is_swept_to_the_end() -> None:
    """All wrong ones below all right ones: every text has a bin of its own."""
    probs, labels = sure([0.55, 0.6, 0.9, 0.95], [0, 0, 1, 1])
    assert ece_sweep(probs, labels).item() == pytest.approx((0.55 + 0.6 + 0.1 + 0.05) / 4)
    probs, labels = sure([0.9, 0.6], [1, 1])
    assert ece_sweep(probs, labels, norm="max").item() == pytest.approx(0.4)


# --- Kolmogorov-Smirnov ---


@given(texts=st.integers(1, 80), seed=st.integers(0, 10**4), decimals=st.sampled_from([None, 1, 2]))
def test_ks_by_all_thresholds_and_below_every_ece(
    texts: int, seed: int, decimals: int | None
) -> None:
    probs, labels = drawn(texts, seed, decimals)
    confidence, right = probs.amax(dim=1), (probs.argmax(dim=1) == labels).double()
    sums = [(confidence - right)[confidence <= t].sum().abs().item() / texts for t in confidence]
    assert ks_error(probs, labels).item() == pytest.approx(max(sums), abs=1e-12)
    # A sum of gaps up to a text is at most the sum of their sizes, text by text.
    each = (confidence - right).abs().mean().item()
    assert ks_error(probs, labels).item() <= each + 1e-12


def test_ks_sees_one_sided_gaps_whole_and_opposite_ones_in_part() -> None:
    one_sided = sure([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0])
    assert ks_error(*one_sided).item() == pytest.approx((0.2 + 0.8) / 4)
    opposite = sure([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1])
    assert ks_error(*opposite).item() == pytest.approx(0.8 / 4)
    assert ece_top_label(*opposite).item() == pytest.approx((0.8 + 0.8) / 4)


# --- Many columns at once ---


def test_a_column_is_what_it_is_alone() -> None:
    """Counts of resamples, with gaps where a text was not drawn and ties where it was twice."""
    probs, labels = drawn(70, 3, decimals=2)
    index_RN = torch.stack(
        [torch.randint(70, (70,), generator=torch.Generator().manual_seed(s)) for s in range(6)]
    )
    whole = ordered(probs, labels)
    columns = [ordered(probs[index], labels[index]) for index in index_RN]
    count, right = (torch.zeros(6, len(whole.confidence_U)).double() for _ in range(2))
    for row, one in enumerate(columns):
        place = torch.searchsorted(whole.confidence_U, one.confidence_U)
        count[row, place], right[row, place] = one.count_RU[0], one.right_RU[0]
    together = Ordered(whole.confidence_U, count, right)
    each_of = {
        "mass": lambda given: equal_mass_each(given, 7),
        "mass l2": lambda given: equal_mass_each(given, 7, "l2"),
        "mass max": lambda given: equal_mass_each(given, 7, "max"),
        "debiased": lambda given: debiased_each(given, 7),
        "sweep": sweep_each,
        "ks": ks_each,
        "smooth": smooth_each,
        "aurc": aurc_each,
        "e_aurc": e_aurc_each,
    }
    for name, each in each_of.items():
        alone = torch.cat([each(one) for one in columns])
        atol = 2e-6 if name == "smooth" else 1e-8
        torch.testing.assert_close(each(together), alone, rtol=0, atol=atol, msg=name)
        assert alone.unique().numel() > 1, name


# --- Edges, and bad input ---


@pytest.mark.parametrize("figure", FIGURES)
def test_probabilities_of_zero_and_one(figure) -> None:  # noqa: ANN001 (figures differ in options)
    certain = torch.eye(2).double()
    assert figure(certain, torch.tensor([0, 1])).item() == 0
    assert figure(certain, torch.tensor([1, 0])).item() == pytest.approx(1)


@pytest.mark.parametrize("figure", FIGURES)
def test_one_class_only_and_all_correct(figure) -> None:  # noqa: ANN001
    probs, labels = sure([0.9] * 8, [1] * 8)
    # The gap of every histogram, a class's or the pooled one, is .1 too.
    assert figure(probs, labels).item() == pytest.approx(0.1, abs=1e-9)


def test_one_bin_is_the_mean_gap() -> None:
    probs, labels = drawn(50, 0)
    gap = abs(probs.amax(dim=1).mean() - (probs.argmax(dim=1) == labels).double().mean()).item()
    for binning in ("width", "mass"):
        for norm in NORMS:
            figure = ece_top_label(probs, labels, 1, binning=binning, norm=norm)  # type: ignore[arg-type]
            assert figure.item() == pytest.approx(gap)


@pytest.mark.parametrize("figure", FIGURES)
def test_float32_and_the_order_of_texts(figure) -> None:  # noqa: ANN001
    probs, labels = drawn(90, 1)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    value = figure(probs, labels)
    assert value.dtype == torch.float64
    assert figure(probs[order], labels[order]).item() == pytest.approx(value.item(), abs=1e-12)
    assert figure(probs.float(), labels).item() == pytest.approx(value.item(), abs=1e-4)


def test_wrong_options_are_named() -> None:
    probs, labels = drawn(5, 0)
    with pytest.raises(InputError, match="norm is 'l3'"):
        ece_top_label(probs, labels, norm="l3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="norm is 'l3'"):
        ece_sweep(probs, labels, norm="l3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="norm is 'l3'"):
        ece_equal_mass(probs, labels, norm="l3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="binning is 'equal'"):
        ece_debiased_l2(probs, labels, pairs=pooled_pairs, binning="equal")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="bins is 0"):
        ece_equal_mass(probs, labels, 0)


@pytest.mark.parametrize("figure", FIGURES)
def test_logits_nan_and_wrong_labels_are_refused(figure) -> None:  # noqa: ANN001
    probs, labels = drawn(5, 0)
    with pytest.raises(InputError, match="look like logits"):
        figure(probs.log(), labels)
    with pytest.raises(InputError, match="hold NaN"):
        figure(torch.full_like(probs, torch.nan), labels)
    with pytest.raises(InputError, match="label of row 2 is 3"):
        figure(probs, torch.tensor([0, 1, 3, 0, 0]))
    with pytest.raises(InputError, match="sum to 2"):
        figure(2 * probs, labels)
