from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text import splits
from calib_ebm.text.splits import Parts, cut, file_halves, halves, hash_halves, held_out, subset

FROZEN_FIT = ["dev-0", "dev-1", "dev-2", "dev-7", "dev-8", "dev-10"]
FROZEN_HELD_OUT = ["dev-0", "dev-1", "dev-4", "dev-9"]
FROZEN_SUBSET = ["dev-0", "dev-2", "dev-4"]


def examples(texts: Sequence[str], split: str = "dev") -> tuple[Example, ...]:
    return tuple(Example(f"{split}-{i}", text, None, i % 2) for i, text in enumerate(texts))


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


def test_file_halves_does_depend_on_the_order_and_parts_equal_texts() -> None:
    fit, test = halves(examples(["a", "b", "b", "c"]), "file_halves")
    assert [e.text for e in fit + test] == ["a", "b", "b", "c"]
    assert {e.text for e in fit} & {e.text for e in test} == {"b"}
    turned, _ = halves(examples(["c", "b", "b", "a"]), "file_halves")
    assert {e.text for e in turned} != {e.text for e in fit}


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


def test_the_second_text_counts() -> None:
    pairs = [Example(f"dev-{i}", "same", f"other {i}", 0) for i in range(20)]
    fit, test = halves(pairs, "hash_halves")
    assert (len(fit), len(test)) == (10, 10)


def test_one_text_cannot_be_halved() -> None:
    with pytest.raises(InputError, match="same text"):
        halves(examples(["a"] * 5), "hash_halves")
    assert len(halves(examples(["a"] * 5), "file_halves")[0]) == 2


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_dev_examples(n: int) -> None:
    with pytest.raises(InputError, match=f"The dev set has {n} examples"):
        halves(numbered(n), "hash_halves")


def test_an_unknown_cut_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'thirds'[^$]*hash_halves \| file_halves"):
        halves(numbered(4), "thirds")


def test_a_new_cut_may_take_from_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_holdout(train: Sequence[Example], dev: Sequence[Example]) -> Parts:
        return Parts(tuple(train[2:]), tuple(train[:2]), tuple(dev))

    monkeypatch.setitem(splits.CUTS, "train_holdout", train_holdout)
    train, dev = examples(["a", "b", "c", "d"], "train"), numbered(3)
    assert cut("train_holdout", train, dev) == (train[2:], train[:2], dev)


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
