from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch
from scipy import stats

from calib_ebm.calibration.compare import paired_bootstrap, paired_over_seeds
from calib_ebm.errors import InputError
from calib_ebm.report.comparison.differences import (
    best_of,
    combine,
    combine_estimates,
    difference,
    mean_of,
)
from calib_ebm.report.comparison.find import read_all
from calib_ebm.report.comparison.members import Member, gather, resample

Folder = Callable[..., Path]
Runs = dict[str, dict[int, Member]]


def methods_of(*folders: Path) -> Runs:
    tasks, left_out = gather(read_all(tuple(sorted(folders))).runs, None)
    assert not left_out and len(tasks) == 1
    for runs in tasks[0].members.values():
        for run in runs.values():
            resample(run, 200, 0)
    return tasks[0].members


def test_one_seed_has_the_interval_of_its_texts_alone() -> None:
    drawn = np.linspace(0.0, 1.0, 1001) + 7  # its own shift is taken away
    found = combine([0.2], [drawn])
    assert (found.value, found.spread, found.share_of_seeds) == (0.2, None, 0.0)
    assert found.low == pytest.approx(0.2 - 0.475) and found.high == pytest.approx(0.2 + 0.475)


def test_over_seeds_by_hand() -> None:
    drawn = [np.asarray([0.0, 0.2, 0.1, 0.1]), np.asarray([0.2, 0.0, 0.1, 0.3])]
    found = combine([0.1, 0.4], drawn)
    seeds = 0.045 / 2  # sd([.1, .4])^2 = .045
    texts = stdev([0.1, 0.1, 0.1, 0.2]) ** 2  # of the mean of both, resample by resample
    degrees = math.floor((2 - 1) * ((seeds + texts) / seeds) ** 2)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(seeds + texts)
    assert found.value == pytest.approx(0.25) and found.spread == pytest.approx(math.sqrt(0.045))
    assert found.low == pytest.approx(0.25 - half) and found.high == pytest.approx(0.25 + half)
    assert found.share_of_seeds == pytest.approx(seeds / (seeds + texts))


def test_estimates_without_resamples_over_seeds_by_hand() -> None:
    alone = combine_estimates([(0.2, 0.1, 0.4)])
    assert (alone.value, alone.low, alone.high) == (0.2, 0.1, 0.4)
    found = combine_estimates([(0.1, 0.1 - 0.0196, 0.1 + 0.0196), (0.4, 0.4, 0.4)])
    texts, seeds = 0.01**2 / 2, 0.045 / 2
    degrees = math.floor(((seeds + texts) / seeds) ** 2)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(seeds + texts)
    assert found.value == pytest.approx(0.25)
    assert found.high - found.value == pytest.approx(half, rel=1e-4)


def test_if_nothing_varies_the_interval_is_a_point() -> None:
    found = combine([0.3, 0.3], [np.full(5, 0.3)] * 2)
    assert found.low == found.value == found.high == pytest.approx(0.3)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    # A mean over three seeds, each with a part of its own, on texts that all of them share.
    random, sets, held, blind = np.random.default_rng(0), 400, 0, 0
    for _ in range(sets):
        of_texts = random.standard_normal(60)
        of_seeds = 0.03 * random.standard_normal(3)
        rows = random.integers(60, size=(200, 60))
        drawn = [of_texts[rows].mean(axis=1) + one for one in of_seeds]
        found = combine([of_texts.mean() + one for one in of_seeds], drawn)
        held += found.low <= 0.0 <= found.high
        # The control: Student's interval over seeds alone does not know that texts vary.
        seeds_alone = combine([of_texts.mean() + one for one in of_seeds], [np.zeros(2)] * 3)
        blind += seeds_alone.low <= 0.0 <= seeds_alone.high
    # Binomial(400, .95) is from 364 to 394 in all but a few of a thousand; a little wide is said.
    assert 364 <= held <= 398 and blind < 300


def test_texts_it_would_take() -> None:
    drawn = np.random.default_rng(0).standard_normal(2000)
    found = combine([1.0], [drawn])
    half = found.value - found.low
    needed = found.texts_needed(100)
    assert needed == math.ceil(100 * half**2) and not found.sure
    # As many texts: the interval then ends at zero.
    at_needed = combine([1.0], [drawn * math.sqrt(100 / needed)])
    assert at_needed.low == pytest.approx(0.0, abs=0.01)
    twice = combine([2.0], [drawn]).texts_needed(100)
    assert twice is not None and needed / twice == pytest.approx(4, rel=0.05)
    # Where the seeds alone reach over zero, texts do not help.
    assert combine([0.5, -0.3], [drawn * 0.01] * 2).texts_needed(100) is None
    assert combine([0.0], [drawn]).texts_needed(100) is None


def test_values_and_resamples_are_of_the_same_texts_for_all_runs(grid: list[Path]) -> None:
    methods = methods_of(*grid)
    plain, hidden = methods["plain fine-tuning"], methods["hidden"]
    assert {*plain} == {*hidden} == {1, 2, 3}
    for seed in plain:
        # These runs predict nearly the same classes: what texts do to one they do to the other.
        a, b = (runs[seed].resampled["test/cls/acc"] for runs in (plain, hidden))
        np.testing.assert_allclose(a, b, atol=1e-12)
    gap = difference(hidden, plain, "test/cls/acc")
    assert gap is not None and gap.low == gap.value == gap.high == 0.0
    ece = difference(hidden, plain, "test/cal/ece")
    assert ece is not None and ece.high < 0 and ece.sure
    alone = mean_of(plain, "test/cls/acc")
    assert alone is not None and alone.high - alone.low > 0.05


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
@pytest.mark.parametrize("stage", ["test", "test_calibrated"])
def test_differences_are_those_of_the_calibration_room(
    grid: list[Path], seeds: tuple[int, ...], stage: str
) -> None:
    methods = methods_of(*grid)
    hidden, plain = (
        {seed: methods[name][seed] for seed in seeds} for name in ("hidden", "plain fine-tuning")
    )
    labels_N = torch.from_numpy(hidden[1].test.labels_N)
    for name in ("cal/ece", "nll", "brier", "cls/acc", "selective/aurc"):
        both = ([runs[seed].probs[stage] for seed in seeds] for runs in (hidden, plain))
        if len(seeds) == 1:
            ((a,), (b,)) = both
            theirs = paired_bootstrap(a, b, labels_N, name, resamples=200)
        else:
            theirs = paired_over_seeds(*both, labels_N, name, resamples=200)
        ours = difference(hidden, plain, f"{stage}/{name}")
        assert ours is not None and ours.seeds == theirs.seeds
        for mine, other in zip(
            (ours.value, ours.low, ours.high, ours.p_value), theirs[:4], strict=True
        ):
            assert mine == pytest.approx(other, abs=1e-9), name


def test_only_seeds_that_both_have_are_paired(grid: list[Path]) -> None:
    methods = methods_of(*grid[:3], *grid[4:])  # hidden lacks seed 1
    gap = difference(methods["hidden"], methods["plain fine-tuning"], "test/nll")
    assert gap is not None and gap.seeds == 2
    one, two = (methods[name] for name in ("hidden", "plain fine-tuning"))
    by_hand = [one[s].values["test/nll"] - two[s].values["test/nll"] for s in (2, 3)]
    assert gap.value == pytest.approx(sum(by_hand) / 2)
    assert difference({9: one[2]}, two, "test/nll") is None
    assert difference(one, two, "test/cls/f1") is None


def test_runs_with_different_dev_sets_are_refused(run_folder: Folder) -> None:
    a = next(iter(methods_of(run_folder(seed=1))["plain fine-tuning"].values()))
    other = run_folder(seed=1, data_seed=5, name="other")
    b = next(iter(methods_of(other)["plain fine-tuning"].values()))
    with pytest.raises(InputError, match="different dev sets") as refused:
        difference({1: a}, {1: b}, "test/nll")
    assert str(a.run.path) in refused.value.given and str(other) in refused.value.given


def test_the_best_is_named_only_if_its_difference_to_the_second_is_off_zero(
    run_folder: Folder,
) -> None:
    folders = [run_folder(energy="none", seed=s, sharp=3.0) for s in (1, 2, 3)]
    folders += [run_folder(energy="hidden", seed=s, sharp=1.0) for s in (1, 2, 3)]
    methods = methods_of(*folders)
    assert best_of(methods, "test/cal/ece", "lower")[0] == "hidden"
    assert best_of(methods, "test/cal/ece", "higher")[0] == "plain fine-tuning"
    # The control: nearly the same method twice, of which one mean is the lower all the same.
    folders += [run_folder(energy="scalar", seed=s, sharp=1.01) for s in (1, 2, 3)]
    methods = methods_of(*folders)
    best, gap = best_of(methods, "test/nll", "lower")
    assert best is None and gap is not None and gap.low <= 0 <= gap.high
    with pytest.raises(InputError, match="better is 'up'"):
        best_of(methods, "test/nll", "up")


def test_of_one_method_nothing_is_best(run_folder: Folder) -> None:
    assert best_of(methods_of(run_folder()), "test/nll", "lower") == (None, None)
