"""Noise in the gaps of its source: enumerated and drawn, and what is visible stays."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.errors import InputError
from calib_ebm.noise.drafts import ALWAYS
from calib_ebm.noise.draw import draw_symbols
from calib_ebm.noise.filters import Sampling, filtered_log_probs
from calib_ebm.noise.gaps import GapGrammar, along_gaps, filled
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import collapse
from calib_ebm.noise.modes import Infill, Lengths, Masked, fit_text
from calib_ebm.noise.sampler import Sampler
from calib_ebm.noise.vocabulary import LmText, Symbols
from calib_ebm.shapes import Encoded
from tests.noise.conftest import SmallOptions, WordTokenizer, build_small
from tests.noise.test_draw import p_value, uniforms

Build = Callable[..., NoiseLm]
CONTENT = range(3)
FILTERS = [Sampling(0), Sampling(2), Sampling(3, temperature=0.7)]


def fillings(prefix: Sequence[int], mask: int, end: int, longest: int) -> list[list[int]]:
    """All that can be written along a prefix, in plain words: each gap filled, and closed."""
    parts: list[list[list[int]]] = []
    # Of one gap, when the others hold a symbol each.
    most = longest - len(prefix) - list(prefix).count(mask)
    for symbol in prefix:
        sizes = range(1, most + 1)
        inside = [list(row) for n in sizes for row in itertools.product(CONTENT, repeat=n)]
        parts.append([[*row, mask] for row in inside] if symbol == mask else [[symbol]])
    rows = ([t for part in choice for t in part] + [end] for choice in itertools.product(*parts))
    return [row for row in rows if len(row) <= longest]


def room_to_go_on(row: Sequence[int], at: int, prefix: Sequence[int], mask: int, max_: int) -> bool:
    """Whether behind `at` symbols of a row, within a gap, one more leaves room for all the rest."""
    closed = list(row[:at]).count(mask)
    gaps = [place for place, symbol in enumerate(prefix) if symbol == mask]
    rest = prefix[gaps[closed] + 1 :]
    return at + 1 + 1 + len(rest) + list(rest).count(mask) + 1 <= max_


def exact(
    lm: NoiseLm,
    prefix: Sequence[int],
    row: Sequence[int],
    sampling: Sampling,
    longest: int,
    along: Sequence[int] | None = None,
) -> float:
    """The probability of a row, symbol by symbol, without cache, batch or states."""
    s, log_p, in_gap, inside = lm.vocabulary.symbols, 0.0, False, 0
    way = prefix if along is None else along
    place = 0  # on the way
    for at, symbol in enumerate(row):
        in_gap = place < len(way) and way[place] == s.mask
        if not in_gap:
            place += 1
            continue
        allowed = torch.zeros(lm.vocabulary.size, dtype=torch.bool)
        going_on = not inside or room_to_go_on(row, at, way, s.mask, longest)
        allowed[list(CONTENT)] = going_on
        allowed[s.mask] = inside > 0
        read = torch.tensor([[*prefix, s.start, *row[:at]]])
        with torch.no_grad():
            logits = lm.model(input_ids=read).logits[0, -1]
        log_p += float(filtered_log_probs(logits[None], sampling, ~allowed)[0, symbol])
        inside = 0 if symbol == s.mask else inside + 1
        place += symbol == s.mask
    return math.exp(log_p)


def drawn_around(
    lm: NoiseLm,
    prefixes: list[list[int]],
    sampling: Sampling,
    longest: int,
    seed: int = 0,
    worth: float | None = None,
    context: int | None = None,
) -> list[list[int]]:
    grammar = GapGrammar(lm.vocabulary, longest, context).given(prefixes)
    numbers = uniforms(len(prefixes), seed, longest)
    return draw_symbols(lm, prefixes, numbers, sampling, grammar, worth)


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_draws_follow_the_enumerated_distribution(
    tiny_lm: Build, singles: list[Encoded], sampling: Sampling
) -> None:
    lm = tiny_lm(singles, seed=2)
    s = lm.vocabulary.symbols
    prefix, longest = [s.mask, 1, s.mask], 8
    rows = fillings(prefix, s.mask, s.end, longest)
    probs = torch.tensor([exact(lm, prefix, row, sampling, longest) for row in rows])
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-4)
    drawn = drawn_around(lm, [prefix] * 4000, sampling, longest)
    counts = Counter(map(tuple, drawn))
    assert set(counts) <= {tuple(row) for row, p in zip(rows, probs, strict=True) if p > 0}
    assert p_value(counts, rows, probs) > 1e-4
    # The control: so many draws tell it from the distribution under another filter.
    other = Sampling(2) if sampling.top_k == 0 else Sampling(0)
    wrong = torch.tensor([exact(lm, prefix, row, other, longest) for row in rows])
    assert (wrong - probs).abs().max() > 0.01
    assert p_value(counts, rows, wrong) < 1e-4


@pytest.mark.parametrize(("context", "along"), [(1, [1, -1, 0, -1]), (0, [-1, -1])])
def test_draws_with_less_context_follow_their_enumerated_distribution(
    tiny_lm: Build, singles: list[Encoded], context: int, along: list[int]
) -> None:
    lm = tiny_lm(singles, seed=2)
    s, sampling = lm.vocabulary.symbols, Sampling(2)
    prefix, way = ([s.mask if t < 0 else t for t in p] for p in ([2, 1, -1, 1, 0, -1, 2], along))
    longest = len(way) + 2 + 3
    rows = fillings(way, s.mask, s.end, longest)
    probs = torch.tensor([exact(lm, prefix, row, sampling, longest, way) for row in rows])
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-4)
    drawn = drawn_around(lm, [prefix] * 4000, sampling, longest, context=context)
    counts = Counter(map(tuple, drawn))
    assert set(counts) <= {tuple(row) for row, p in zip(rows, probs, strict=True) if p > 0}
    assert p_value(counts, rows, probs) > 1e-4
    # The control: who reads another prefix writes otherwise.
    wrong = torch.tensor([exact(lm, [s.mask, 2], row, sampling, longest, way) for row in rows])
    assert p_value(counts, rows, wrong) < 1e-4


def test_what_was_written_goes_back_into_its_prefix() -> None:
    prefix, mask = [8, 9, 0, 7, 6, 5, 0], 0
    assert along_gaps(prefix, mask, None) == prefix
    assert along_gaps(prefix, mask, 2) == [8, 9, 0, 6, 5, 0]
    assert along_gaps(prefix, mask, 0) == [0, 0]
    for context in (None, 3, 2, 1, 0):
        along = along_gaps(prefix, mask, context)
        written = [t for s in along for t in ([1, 2, 0] if s == mask else [s])]
        assert filled(prefix, along, [*written, 99], mask) == [8, 9, 1, 2, 7, 6, 5, 1, 2]
    assert filled([4, 5], along_gaps([4, 5], mask, 0), [99], mask) == [4, 5]


def is_written_along(text: list[int], prefix: list[int], s: Symbols) -> bool:
    """Whether every visible symbol stands in its place and every gap holds content, and MASK."""
    at = 0
    for symbol in [*prefix, s.end]:
        if symbol == s.mask:
            close = text.index(s.mask, at)
            if close == at or not set(text[at:close]) <= {*CONTENT}:
                return False
            at = close
        elif text[at] != symbol:
            return False
        at += 1
    return at == len(text)


PREFIX = st.lists(st.integers(-1, 2), min_size=1, max_size=7)
"""-1 for a gap."""


def gapped(prefix: Sequence[int], s: Symbols) -> list[int]:
    """As it may come from a text: no gap beside a gap."""
    ids = [s.mask if symbol < 0 else symbol for symbol in prefix]
    return [t for n, t in enumerate(ids) if t != s.mask or n == 0 or ids[n - 1] != s.mask]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """What fixtures give for each test, for all examples of a test that hypothesis runs."""
    torch.manual_seed(3)
    singles = [Encoded([3, 4, 5], None, 0)]
    options = SmallOptions(layers=1, width=16, heads=2, dropout=0.0)
    lm = build_small(singles, WordTokenizer(), 2, 60, options, masked=False)
    return {"lm": lm, "symbols": lm.vocabulary.symbols}


@given(st.lists(PREFIX, min_size=1, max_size=5), st.integers(0, 3), st.integers(0, 9))
def test_what_is_visible_stays_and_every_gap_is_filled_and_closed(
    parts: dict[str, Any], given_: list[list[int]], more: int, seed: int
) -> None:
    lm, s = parts["lm"], parts["symbols"]
    prefixes = [gapped(prefix, s) for prefix in given_]
    longest = more + max(len(p) + p.count(s.mask) + 1 for p in prefixes)
    written = drawn_around(lm, prefixes, Sampling(2), longest, seed)
    # Guesses from the prefix change nothing.
    assert drawn_around(lm, prefixes, Sampling(2), longest, seed, worth=ALWAYS) == written
    for row, (prefix, text) in enumerate(zip(prefixes, written, strict=True)):
        assert len(text) <= longest and text[-1] == s.end
        assert is_written_along(text, prefix, s)
        # The neighbours in the batch, which leave it at other times, count for nothing.
        numbers = uniforms(len(prefixes), seed, longest)[row : row + 1]
        alone = GapGrammar(lm.vocabulary, longest).given([prefix])
        assert draw_symbols(lm, [prefix], numbers, Sampling(2), alone) == [text]


def test_a_gap_is_closed_in_time_where_the_room_ends(
    tiny_lm: Build, singles: list[Encoded]
) -> None:
    lm = tiny_lm(singles)
    s = lm.vocabulary.symbols
    with torch.no_grad():
        # A model that never closes a gap of itself.
        lm.model.get_output_embeddings().weight[s.mask] = 0
        lm.model.transformer.ln_f.bias.fill_(3.0)
        lm.model.get_output_embeddings().weight[list(CONTENT)] = 1.0
    for text in drawn_around(lm, [[s.mask, 1, s.mask, 2]] * 8, Sampling(0), 12):
        assert len(text) == 12 and text[-1] == s.end and text.count(s.mask) == 2
    with pytest.raises(AssertionError, match="leaves room"):
        GapGrammar(lm.vocabulary, 6).given([[s.mask, 1, s.mask, 2]])


S = Symbols.after(10, classes=2)


@given(st.integers(0, 500), st.booleans(), st.floats(0.05, 0.95), st.integers(0, 4))
def test_a_lesson_with_less_context_is_what_is_drawn(
    seed: int, pair: bool, rate: float, context: int
) -> None:
    text = LmText([1, 2, 3, S.unknown, 4], [5, 6, 7] if pair else None, 1)
    mode = Infill(rate, context)
    prefix, target, asked = mode.lesson(text, S, np.random.default_rng(seed))
    whole = Infill(rate).lesson(text, S, np.random.default_rng(seed))
    assert prefix == whole.prefix
    # It writes the same, and is given what stands at most so far before a gap.
    for lesson in (mode.lesson(text, S, np.random.default_rng(seed)), whole):
        written = [t for t, own in zip(lesson.target, lesson.asked, strict=True) if own]
        assert written == [t for t, own in zip(target, asked, strict=True) if own]
    along = along_gaps(prefix, S.mask, context)
    given_ = [t for t, own in zip(target, asked, strict=True) if not own]
    assert given_ == [t for t in along if t != S.mask] + [S.end]
    assert filled(prefix, along, target, S.mask) == Masked(rate).target(text, S)[:-1]
    assert target[-1] == S.end and not asked[-1]


@pytest.mark.parametrize("context", [-1, 1.5, True, "two"])
def test_a_context_that_is_none_is_refused(context: Any) -> None:
    with pytest.raises(InputError, match=r"noise\.context"):
        Infill(0.4, context)


@given(st.integers(0, 500), st.booleans(), st.floats(0.05, 0.95))
def test_a_lesson_is_the_text_with_its_gaps_closed(seed: int, pair: bool, rate: float) -> None:
    text = LmText([1, 2, 3, S.unknown, 4], [5, 6, 7] if pair else None, 1)
    prefix, target, asked = Infill(rate).lesson(text, S, np.random.default_rng(seed))
    whole = Masked(rate).target(text, S)
    assert [symbol for symbol in target if symbol != S.mask] == whole
    visible = [t for t, is_asked in zip(target, asked, strict=True) if not is_asked]
    assert visible[-1] == S.end and S.unknown not in visible
    assert visible[:-1] == [symbol for symbol in prefix if symbol != S.mask]
    assert target.count(S.mask) == prefix.count(S.mask)
    assert prefix.count(S.pair) == int(pair)
    # As drawn: along the prefix, what stands in gaps is what is asked.
    gaps = collapse(target[:-1], asked[:-1], S.mask)
    assert gaps == prefix
    assert Infill(rate).prefix(text, S, np.random.default_rng(seed)) == prefix


def test_masks_are_those_of_masked_noise() -> None:
    text = LmText([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3], 0)
    for seed in range(20):
        one, other = (
            m.prefix(text, S, np.random.default_rng(seed)) for m in (Infill(0.4), Masked(0.4))
        )
        assert one == other


@given(st.integers(4, 40), st.booleans(), st.integers(0, 50))
def test_every_text_within_the_budget_has_room_for_all_its_gaps(
    target: int, pair: bool, seed: int
) -> None:
    lengths = Lengths(prefix=40, target=target)
    mode = Infill(0.5)
    long = LmText(list(range(9)) * 6, list(range(9)) * 6 if pair else None, 0)
    cut = fit_text(long, lengths.budget(pair, mode))
    lesson = mode.lesson(cut, S, np.random.default_rng(seed))
    assert len(lesson.target) <= target
    assert len(lesson.prefix) <= lengths.prefix


@pytest.mark.parametrize("context", [None, 1])
@pytest.mark.parametrize("of", ["singles", "pairs"])
def test_noise_holds_what_was_visible_of_its_source(
    tiny_lm: Build, of: str, context: int | None, request: pytest.FixtureRequest
) -> None:
    texts: list[Encoded] = request.getfixturevalue(of)
    lm = tiny_lm(texts)
    # It reads more than noise can be long: what it cuts off would be missed here.
    tokenizer = WordTokenizer(max_length=80)
    mode = Infill(0.4, context)
    sampler = Sampler(lm, mode, Sampling(3), texts, tokenizer, Lengths(12, 24), seed=5)
    drawn, counts = sampler.draw(range(60), batch_size=16)
    assert counts.dropped == 0
    s, same = lm.vocabulary.symbols, 0
    for number, (text, source) in enumerate(drawn):
        assert source == sampler.source_row(number)
        for ids, half in zip(
            (text.ids_a, text.ids_b), halves(sampler.prefix(number), s), strict=True
        ):
            if half is None:
                assert ids is None
                continue
            visible = iter(lm.vocabulary.to_content([t for t in half if t != s.mask]))
            wanted = next(visible, None)
            for token in ids or []:
                wanted = next(visible, None) if token == wanted else wanted
            assert wanted is None, "all that was visible is there, in its order"
        same += text.ids_a == texts[source].ids_a
    assert 0 < same < len(drawn)
    with pytest.raises(InputError, match="noise=masked"):
        sampler.log_prob([drawn[0].text], [sampler.prefix(0)])


def halves(prefix: list[int], s: Symbols) -> tuple[list[int], list[int] | None]:
    if s.pair not in prefix:
        return prefix, None
    middle = prefix.index(s.pair)
    return prefix[:middle], prefix[middle + 1 :]
