from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text import splits
from calib_ebm.text.splits import (
    CUTS,
    CutOptions,
    Parts,
    crossfit,
    cut,
    file_halves,
    hash_halves,
    held_out,
    refuse_overlap,
    subset,
    train_holdout,
    words,
)

FROZEN_FIT = ["dev-0", "dev-1", "dev-2", "dev-7", "dev-8", "dev-10"]
FROZEN_HELD_OUT = ["dev-0", "dev-1", "dev-4", "dev-9"]
FROZEN_SUBSET = ["dev-0", "dev-2", "dev-4"]
FROZEN_HOLDOUT = ["dev-0", "dev-1", "dev-4", "dev-7"]
FROZEN_FOLDS = (0, 2, 1, 2, 0, 0, 1, 2, 0, 1, 1, 2)


def examples(texts: Sequence[str], split: str = "dev") -> tuple[Example, ...]:
    return tuple(Example(f"{split}-{i}", text, None, i % 2) for i, text in enumerate(texts))


def halves(dev: Sequence[Example], name: str) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    parts = cut(name, (), dev)
    return parts.fit, parts.test


def numbered(n: int) -> tuple[Example, ...]:
    return examples([f"text {i}" for i in range(n)])


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40))
def test_hash_halves_keeps_equal_texts_together_and_loses_nothing(texts: list[str]) -> None:
    dev = examples(texts)
    parts = hash_halves((), dev)
    assert not {e.text for e in parts.fit} & {e.text for e in parts.test}
    assert sorted(parts.fit + parts.test) == sorted(dev)
    assert [e for e in dev if e in parts.fit] == list(parts.fit)  # file order
    if len(set(texts)) > 1:
        assert parts.fit
        assert parts.test


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), st.randoms())
def test_hash_halves_does_not_depend_on_the_order_of_the_file(
    texts: list[str], rng: random.Random
) -> None:
    shuffled = rng.sample(texts, len(texts))

    def texts_of_fit(order: list[str]) -> set[str]:
        return {example.text for example in hash_halves((), examples(order)).fit}

    assert texts_of_fit(texts) == texts_of_fit(shuffled)


def test_file_halves_does_depend_on_the_order_and_leaves_out_what_would_leak() -> None:
    fit, test = halves(examples(["a", "b", "b", "c"]), "file_halves")
    assert [e.text for e in test] == ["b", "c"]  # the reference's reported half
    assert [e.text for e in fit] == ["a"]  # and b, which stands in it, calibrates nothing
    turned, _ = halves(examples(["c", "b", "b", "a"]), "file_halves")
    assert {e.text for e in turned} == {"c"}


@pytest.mark.parametrize(("n", "fit", "test"), [(2, 1, 1), (71, 35, 36), (872, 436, 436)])
def test_sizes_of_hash_halves(n: int, fit: int, test: int) -> None:
    parts = hash_halves((), numbered(n))
    assert (len(parts.fit), len(parts.test)) == (fit, test)


@pytest.mark.parametrize(("n", "half"), [(2, 1), (71, 35), (872, 436)])
def test_file_halves_drops_the_odd_middle_example(n: int, half: int) -> None:
    dev = numbered(n)
    parts = file_halves((), dev)
    assert parts.fit == dev[:half]
    assert parts.test == dev[n - half :]


def test_hash_halves_is_the_same_cut_in_every_version() -> None:
    # Numbers of one run are compared with those of another: this cut may never change.
    assert [e.id for e in hash_halves((), numbered(12)).fit] == FROZEN_FIT
    assert [e.id for e in held_out(numbered(12), 0.25)[1]] == FROZEN_HELD_OUT
    assert [e.id for e in subset(numbered(12), 3)] == FROZEN_SUBSET
    options = CutOptions(holdout_fraction=0.3, folds=3)
    assert [e.id for e in train_holdout(numbered(12), (), options).fit] == FROZEN_HOLDOUT
    assert crossfit((), numbered(12), options).folds == FROZEN_FOLDS


def test_the_second_text_counts() -> None:
    pairs = [Example(f"dev-{i}", "same", f"other {i}", 0) for i in range(20)]
    fit, test = halves(pairs, "hash_halves")
    assert (len(fit), len(test)) == (10, 10)


def test_one_text_cannot_be_halved() -> None:
    for name in ("hash_halves", "file_halves"):
        with pytest.raises(InputError, match="same text"):
            halves(examples(["a"] * 5), name)
    with pytest.raises(InputError, match=r"task\.folds is 5"):
        halves(examples(["a"] * 5), "crossfit")


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_dev_examples(n: int) -> None:
    with pytest.raises(InputError, match=f"The dev set has {n} examples"):
        halves(numbered(n), "hash_halves")


def test_an_unknown_cut_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'thirds'[^$]*hash_halves \| file_halves"):
        halves(numbered(4), "thirds")


def test_a_cut_of_one_s_own_may_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(train: Sequence[Example], dev: Sequence[Example], _: CutOptions) -> Parts:
        return Parts(tuple(train), tuple(dev[:2]), tuple(dev[1:]))

    monkeypatch.setitem(splits.CUTS, "leaky", leaky)
    with pytest.raises(InputError, match="'dev-1' is in fit and test"):
        cut("leaky", (), numbered(3))


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30),
    st.lists(st.sampled_from("defghijk"), min_size=2, max_size=30),
    st.sampled_from(sorted(CUTS)),
)
def test_no_cut_lets_a_text_be_fitted_on_and_reported(
    train_texts: list[str], dev_texts: list[str], name: str
) -> None:
    train, dev = examples(train_texts, "train"), examples(dev_texts)
    try:
        parts = cut(name, train, dev, CutOptions(0.5, 2))
    except InputError:
        return  # a part would be empty
    trained, fitted = {e.id for e in parts.train}, {e.id for e in parts.fit}
    assert not trained & fitted and not trained & {e.id for e in parts.test}
    if parts.folds is None:
        assert not {*map(words, parts.fit)} & {*map(words, parts.test)}
    else:
        assert parts.fit == parts.test == dev
        for fold in {*parts.folds}:
            inside = {e.text for e, f in zip(dev, parts.folds, strict=True) if f == fold}
            others = {e.text for e, f in zip(dev, parts.folds, strict=True) if f != fold}
            assert inside and others and not inside & others


def test_each_way_to_leak_is_refused_with_the_names() -> None:
    one, two = examples(["a", "b"])
    twin = Example("dev-7", "a", None, 1)
    refuse_overlap(Parts((), (one,), (two,)))  # the control
    refuse_overlap(Parts((), (one, two, twin), (one, two, twin), (0, 1, 0)))
    for parts, said in (
        (Parts((), (one,), (one, two)), "'dev-0' is in fit and test"),
        (Parts((one,), (one,), (two,)), "'dev-0' is in train and fit"),
        (Parts((two,), (one,), (two,)), "'dev-1' is in train and test"),
        (Parts((), (one,), (twin, two)), "'dev-0' and 'dev-7', is in fit and test"),
        (Parts((), (one, two, twin), (one, two, twin), (0, 1, 1)), "'dev-7' is in two folds"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_overlap(parts)


def test_train_holdout_is_not_trained_on_and_all_of_dev_is_reported() -> None:
    train, dev = examples([f"text {i % 900}" for i in range(1000)], "train"), numbered(20)
    parts = cut("train_holdout", train, dev, CutOptions(holdout_fraction=0.25))
    assert sorted(parts.train + parts.fit) == sorted(train) and parts.test == dev
    assert not {e.text for e in parts.train} & {e.text for e in parts.fit}
    # "text 0" to "text 19" stand in dev, and so calibrate nothing; they are still trained on.
    assert not {e.text for e in parts.fit} & {e.text for e in dev}
    assert {e.text for e in dev} <= {e.text for e in parts.train}
    # 880 texts at .25, some twice: 1000 * .25 with a standard deviation below 16.
    assert abs(len(parts.fit) - 245) < 5 * 16


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_share_that_cannot_be(fraction: float) -> None:
    with pytest.raises(InputError, match=r"task\.holdout_fraction"):
        cut("train_holdout", numbered(9), examples(["a", "b"]), CutOptions(fraction))


def test_a_holdout_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(InputError, match="finds nothing to fit calibrators on"):
        cut("train_holdout", examples(["a", "b"], "train"), examples(["a", "b"]))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), st.randoms())
def test_folds_do_not_depend_on_the_order_of_the_file(texts: list[str], rng: random.Random) -> None:
    shuffled = rng.sample(texts, len(texts))

    def fold_of(order: list[str]) -> dict[str, int]:
        folds = crossfit((), examples(order), CutOptions(folds=2)).folds
        return dict(zip(order, folds or (), strict=True))

    if len(set(texts)) > 1:
        assert fold_of(texts) == fold_of(shuffled)


@pytest.mark.parametrize(("n", "folds"), [(71, 5), (872, 5), (10, 10), (7, 2)])
def test_folds_are_as_equal_as_can_be(n: int, folds: int) -> None:
    found = crossfit((), numbered(n), CutOptions(folds=folds)).folds
    assert found is not None
    sizes = [found.count(fold) for fold in range(folds)]
    assert sum(sizes) == n and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("folds", [1, 0, 12, True])
def test_a_number_of_folds_that_cannot_be(folds: int) -> None:
    with pytest.raises(InputError, match=rf"task\.folds is {folds}"):
        cut("crossfit", (), numbered(11), CutOptions(folds=folds))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.integers(0, 29))
def test_held_out_texts_stay_on_their_side_when_rows_are_added(texts: list[str], n: int) -> None:
    train = examples(texts)
    rest, dev = held_out(train, 0.4)
    assert sorted(rest + dev) == sorted(train)
    assert not {e.text for e in rest} & {e.text for e in dev}
    some_rest, some_dev = held_out(train[:n], 0.4)
    assert set(some_rest) <= set(rest)
    assert set(some_dev) <= set(dev)


def test_held_out_share() -> None:
    # 4,000 texts at .2: standard deviation sqrt(4000 * .2 * .8) = 25; five of them.
    assert abs(len(held_out(numbered(4000), 0.2)[1]) - 800) < 5 * 25.3


def test_cuts_are_independent_of_one_another() -> None:
    texts = numbered(4000)
    fit = {e.id for e in hash_halves((), texts).fit}
    _, dev = held_out(texts, 0.2)
    shared = sum(e.id in fit for e in dev) / len(dev)
    assert abs(shared - 0.5) < 0.1  # with one hash for both it would be 1
    again = sum(splits.text_hash(e, "held out") < 2**255 for e in dev) / len(dev)
    assert again == 1


@given(st.lists(st.text(max_size=3), min_size=1, max_size=30), st.data())
def test_subsets_are_nested_and_in_file_order(texts: list[str], data: st.DataObject) -> None:
    train = examples(texts)
    large = data.draw(st.integers(1, len(train)))
    small = data.draw(st.integers(1, large))
    assert len(subset(train, small)) == small
    assert set(subset(train, small)) <= set(subset(train, large))
    assert [e for e in train if e in subset(train, large)] == list(subset(train, large))
