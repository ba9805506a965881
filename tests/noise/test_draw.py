"""The distribution of noise: enumerated, scored and drawn, three ways to the same numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from calib_ebm.noise.draw import draw_symbols, log_prob_symbols
from calib_ebm.noise.filters import Sampling, filtered_log_probs
from calib_ebm.noise.gpt2 import Gpt2Reader
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.reading import CacheReader
from calib_ebm.shapes import Encoded

Build = Callable[..., NoiseLm]
LONGEST = 4


def grammar_of(lm: NoiseLm, pairs: bool, labelled: bool, longest: int = LONGEST) -> Grammar:
    return Grammar(lm.vocabulary, pairs=pairs, labelled=labelled, max_symbols=longest)


def all_texts(lm: NoiseLm, pairs: bool, labelled: bool) -> list[list[int]]:
    """Every row of symbols that is a text, written in plain words rather than as a grammar."""
    s = lm.vocabulary.symbols
    content = range(len(lm.vocabulary.content_of))
    labels = [[label] for label in s.labels] if labelled else [[]]
    rows = []
    for size in range(1, LONGEST + 1):
        for row in itertools.product([*content, *([s.pair] if pairs else [])], repeat=size):
            halves = "".join("|" if t == s.pair else "." for t in row).split("|")
            if len(halves) == 1 + pairs and all(halves):
                rows.append(list(row))
    ended = [[*label, *row, s.end] for label in labels for row in rows]
    cut = [[*label, *row] for label in labels for row in rows]
    return [r for r in ended if len(r) <= LONGEST] + [r for r in cut if len(r) == LONGEST]


def uniforms(size: int, seed: int, longest: int = LONGEST) -> np.ndarray:
    return np.random.default_rng(seed).random((size, longest))


KINDS = [(False, False), (False, True), (True, False), (True, True)]
FILTERS = [Sampling(0), Sampling(2), Sampling(3, temperature=0.7)]


@pytest.mark.parametrize(("pairs", "labelled"), KINDS)
@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_the_probabilities_of_all_texts_sum_to_one(
    tiny_lm: Build, singles: list[Encoded], pairs: bool, labelled: bool, sampling: Sampling
) -> None:
    lm = tiny_lm(singles)
    rows = all_texts(lm, pairs, labelled)
    grammar = grammar_of(lm, pairs, labelled)
    log_probs = log_prob_symbols(lm, [[0, 1]] * len(rows), rows, sampling, grammar)
    assert math.isclose(float(log_probs.exp().sum()), 1.0, abs_tol=1e-5)
    without_cut = [row[-1] == lm.vocabulary.symbols.end for row in rows]
    # The control: the texts that were cut do count.
    assert float(log_probs[without_cut].exp().sum()) < 1 - 1e-3


@pytest.mark.parametrize(("pairs", "labelled"), KINDS)
@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_draws_follow_the_enumerated_distribution(
    tiny_lm: Build, singles: list[Encoded], pairs: bool, labelled: bool, sampling: Sampling
) -> None:
    lm = tiny_lm(singles, seed=1)
    rows = all_texts(lm, pairs, labelled)
    grammar, prefix, size = grammar_of(lm, pairs, labelled), [2, 0], 4000
    exact = log_prob_symbols(lm, [prefix] * len(rows), rows, sampling, grammar).exp()
    drawn = draw_symbols(lm, [prefix] * size, uniforms(size, 3), sampling, grammar)
    counts = Counter(map(tuple, drawn))
    assert set(counts) <= {tuple(r) for r, p in zip(rows, exact, strict=True) if p > 0}
    assert p_value(counts, rows, exact) > 1e-4
    # The control: this many draws tell it from the distribution without a filter, or with another.
    other = Sampling(2) if sampling.top_k == 0 else Sampling(0)
    wrong = log_prob_symbols(lm, [prefix] * len(rows), rows, other, grammar).exp()
    if (wrong - exact).abs().max() > 0.05:
        assert p_value(counts, rows, wrong) < 1e-4


def p_value(counts: Counter[tuple[int, ...]], rows: list[list[int]], probs: Tensor) -> float:
    """Chi-square of counts against probabilities, rare texts taken together."""
    size = sum(counts.values())
    expected = probs.double().numpy() / probs.double().sum().item() * size
    observed = np.asarray([counts[tuple(row)] for row in rows], dtype=float)
    often = expected >= 8
    bins = [*zip(observed[often], expected[often], strict=True)]
    rest = observed[~often].sum(), expected[~often].sum()
    if rest[1] > 1:
        bins.append(rest)
    elif rest[0] > 20:
        return 0.0
    if len(bins) < 2:
        return 1.0
    seen, due = (np.asarray(side) for side in zip(*bins, strict=True))
    return float(chisquare(seen, due * seen.sum() / due.sum()).pvalue)


def theirs(
    lm: NoiseLm, prefix: Sequence[int], row: Sequence[int], sampling: Sampling, grammar: Grammar
) -> float:
    """Log-probability symbol by symbol, without cache, batch or padding."""
    read = [*prefix, lm.vocabulary.symbols.start]
    state, total = grammar.begin(1), 0.0
    for place, symbol in enumerate(row):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([read])).logits[:, -1]
        state = grammar.at(state, place)
        total += float(filtered_log_probs(logits, sampling, grammar.banned_SV[state])[0, symbol])
        state = grammar.after(state, torch.tensor([symbol]))
        read.append(symbol)
    return total


RAGGED = [[0, 1, 2, 0, 1, 2], [], [1], [2, 2, 1], [0], [1, 0, 2, 2]]


def test_scoring_is_exact_whatever_the_neighbours(tiny_lm: Build, singles: list[Encoded]) -> None:
    lm, sampling = tiny_lm(singles), Sampling(2)
    grammar = grammar_of(lm, False, False, 6)
    drawn = draw_symbols(lm, RAGGED, uniforms(6, 0, 6), sampling, grammar)
    assert len({len(row) for row in drawn}) > 1
    together = log_prob_symbols(lm, RAGGED, drawn, sampling, grammar)
    alone = [theirs(lm, p, row, sampling, grammar) for p, row in zip(RAGGED, drawn, strict=True)]
    torch.testing.assert_close(together, torch.tensor(alone).double(), atol=1e-5, rtol=0)


def next_logits(
    lm: NoiseLm, make: Callable[[], Any], prefixes: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Logits of the first and of the second symbol, as a reader gives them."""
    with torch.inference_mode():
        reader = make()
        first = reader.begin([[*prefix, lm.vocabulary.symbols.start] for prefix in prefixes])
        return first, reader.read(torch.ones(len(prefixes), 1, dtype=torch.long))


def readers_of(lm: NoiseLm) -> list[Callable[[], Any]]:
    pad = lm.vocabulary.symbols.pad
    return [partial(Gpt2Reader, lm.model), partial(CacheReader, lm.model, pad)]


@pytest.mark.parametrize("which", [0, 1])
def test_padding_changes_no_distribution(
    tiny_lm: Build, singles: list[Encoded], which: int
) -> None:
    lm = tiny_lm(singles)
    make = readers_of(lm)[which]
    together = next_logits(lm, make, RAGGED)
    for row, prefix in enumerate(RAGGED):
        alone = next_logits(lm, make, [prefix])
        for ours, theirs_ in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[row], theirs_[0], atol=1e-5, rtol=0)


class Forgetful(CacheReader):
    """The trap, set on purpose."""

    forgotten: str

    def _step(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        assert self.mask_BT is not None
        if self.forgotten == "mask":
            self.mask_BT = torch.ones_like(self.mask_BT)
        else:
            positions = torch.arange(ids.shape[1])[None]
        return super()._step(ids, positions)


@pytest.mark.parametrize("forgotten", ["mask", "positions"])
def test_the_control_padding_that_is_seen_or_counted_changes_it(
    tiny_lm: Build, singles: list[Encoded], forgotten: str
) -> None:
    lm = tiny_lm(singles)
    alone = next_logits(lm, readers_of(lm)[1], [RAGGED[2]])[0][0]

    def forgetful() -> Forgetful:
        reader = Forgetful(lm.model, lm.vocabulary.symbols.pad)
        reader.forgotten = forgotten
        return reader

    together = next_logits(lm, forgetful, RAGGED)[0][2]
    assert (together - alone).abs().max() > 1e-3


@pytest.mark.parametrize(("pairs", "labelled"), KINDS)
def test_any_models_own_forward_draws_the_same(
    tiny_lm: Build,
    singles: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    pairs: bool,
    labelled: bool,
) -> None:
    """GPT-2 is read by a reader of its own, every other model by its forward and its cache."""
    lm, longest = tiny_lm(singles), 9
    grammar, numbers = grammar_of(lm, pairs, labelled, longest), uniforms(48, 4, longest)
    assert isinstance(lm.reader(), Gpt2Reader)
    ours = draw_symbols(lm, RAGGED * 8, numbers, Sampling(3), grammar)
    monkeypatch.setattr(lm, "reader", readers_of(lm)[1])
    assert ours == draw_symbols(lm, RAGGED * 8, numbers, Sampling(3), grammar)
    assert len({len(row) for row in ours}) > 3  # rows left the batch at different places


def test_a_text_is_drawn_the_same_in_any_batch(tiny_lm: Build, singles: list[Encoded]) -> None:
    lm, longest = tiny_lm(singles), 8
    grammar, sampling = grammar_of(lm, False, False, longest), Sampling(3)
    prefixes, numbers = RAGGED * 8, uniforms(48, 5, longest)
    together = draw_symbols(lm, prefixes, numbers, sampling, grammar)
    alone = [
        draw_symbols(lm, [prefix], numbers[i : i + 1], sampling, grammar)[0]
        for i, prefix in enumerate(prefixes)
    ]
    assert together == alone
    assert together != draw_symbols(lm, prefixes, uniforms(48, 6, longest), sampling, grammar)


@pytest.mark.parametrize(("pairs", "labelled"), KINDS)
def test_whatever_the_model_every_noise_text_is_a_text(
    tiny_lm: Build, singles: list[Encoded], pairs: bool, labelled: bool
) -> None:
    lm, longest = tiny_lm(singles, seed=2), 7
    s, grammar = lm.vocabulary.symbols, grammar_of(lm, pairs, labelled, longest)
    drawn = draw_symbols(lm, [[]] * 500, uniforms(500, 8, longest), Sampling(0), grammar)
    for row in drawn:
        label, rest = (row[:1], row[1:]) if labelled else ([], row)
        assert all(symbol in s.labels for symbol in label)
        body = rest[:-1] if rest[-1] == s.end else rest
        assert len(row) == longest or rest[-1] == s.end
        assert body.count(s.pair) == pairs
        assert body[0] != s.pair
        assert body[-1] != s.pair
        assert all(symbol < s.mask or symbol == s.pair for symbol in body)
    assert len({len(row) for row in drawn}) > 2
