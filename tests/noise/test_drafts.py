"""Guesses from the prefix: what they are, and that they change nothing that is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from calib_ebm.noise import draw
from calib_ebm.noise.drafts import ALWAYS, NEVER, WIDEST, Drafts, worth_on
from calib_ebm.noise.draw import draw_symbols, log_prob_symbols
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.shapes import Encoded

from .test_draw import KINDS, all_texts, p_value

Build = Callable[..., NoiseLm]
MASK = 9


def guesses(drafts: Drafts, most: int = 99) -> list[list[int]]:
    draft_BD, count_B = drafts.next(torch.full((len(drafts.at_B),), most))
    return [row[:n] for row, n in zip(draft_BD.tolist(), count_B.tolist(), strict=True)]


def test_what_stands_next_in_the_prefix_is_guessed_up_to_a_gap() -> None:
    drafts = Drafts([[1, 2, MASK, 3, 4], [], [MASK, 5]], MASK, torch.device("cpu"), ALWAYS)
    everyone = torch.ones(3, dtype=torch.bool)
    assert guesses(drafts) == [[1, 2], [], []]
    assert guesses(drafts, most=1) == [[1], [], []]
    drafts.follow(torch.tensor([1, 7, 6]), everyone)
    # Of a gap the first symbol is not guessed; behind it the gap may be over.
    assert guesses(drafts) == [[2], [], [5]]
    drafts.follow(torch.tensor([8, 7, 6]), torch.tensor([True, True, False]))
    assert guesses(drafts) == [[2], [], [5]]  # another symbol came between; a row that stayed
    drafts.follow(torch.tensor([2, 7, 5]), everyone)
    assert guesses(drafts) == [[], [], []]
    drafts.follow(torch.tensor([6, 7, 7]), everyone)
    assert guesses(drafts) == [[3, 4], [], []]
    drafts.follow(torch.tensor([6, 7, 7]), everyone)  # a longer gap
    assert guesses(drafts) == [[3, 4], [], []]
    drafts.follow(torch.tensor([3, 7, 7]), everyone)
    drafts.keep(torch.tensor([2, 0]))
    assert guesses(drafts) == [[], [4]]


def test_guesses_are_made_as_long_as_they_are_worth_it() -> None:
    drafts = Drafts([list(range(8))], MASK, torch.device("cpu"), worth=0.8)
    assert drafts.width == WIDEST  # nothing is known yet
    drafts.learn(torch.tensor([99]), torch.tensor([99]))
    assert drafts.width == WIDEST
    # 89 of 99 right: .9 ** 2 > .8 > .9 ** 3.
    drafts.made, drafts.right = 99, 89
    assert drafts.width == 2
    drafts.made, drafts.right = 99, 69
    assert drafts.width == 0 and guesses(drafts) == [[]]
    # Of four guesses of which the first was wrong, three were not looked at.
    drafts.made, drafts.right = 0, 0
    drafts.learn(torch.tensor([4, 4, 2]), torch.tensor([0, 2, 2]))
    assert (drafts.made, drafts.right) == (1 + 3 + 2, 0 + 2 + 2)


def copying(lm: NoiseLm, share: float) -> NoiseLm:
    """Let the model write what is probable anyway: guesses then are right now and then."""
    with torch.no_grad():
        lm.model.lm_head.weight.mul_(share)
    return lm


PREFIXES = [[0, 1, 2, 0], [2, 1], [], [1, 1, 1, 1, 1, 1], [0, 3, 1, 2], [3, 2, 2]]


@pytest.mark.parametrize(("pairs", "labelled"), KINDS)
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(2, temperature=0.7)], ids=str)
def test_with_guesses_the_very_same_texts_are_drawn(
    tiny_lm: Build, singles: list[Encoded], pairs: bool, labelled: bool, sampling: Sampling
) -> None:
    lm, longest = copying(tiny_lm(singles), 0.3), 9
    s = lm.vocabulary.symbols
    assert s.mask == 3
    prefixes = [[*prefix, s.pair, 1] if pairs else prefix for prefix in PREFIXES] * 20
    grammar = Grammar(lm.vocabulary, pairs=pairs, labelled=labelled, max_symbols=longest)
    numbers = np.random.default_rng(0).random((len(prefixes), longest))
    plain, always, sometimes = (
        draw_symbols(lm, prefixes, numbers, sampling, grammar, worth)
        for worth in (NEVER, ALWAYS, 0.4)
    )
    assert plain == always == sometimes


def counted(lm: NoiseLm, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Symbols taken of each row, at each reading."""
    seen: list[Tensor] = []
    taken = draw._taken

    def spy(symbol_BQ: Tensor, draft_BD: Tensor) -> Tensor:
        seen.append(taken(symbol_BQ, draft_BD))
        return seen[-1]

    monkeypatch.setattr(draw, "_taken", spy)
    return seen


PREFIX, SIZE, LONGEST = [1, 1, 2, 0], 4000, 4


@pytest.mark.parametrize(("pairs", "labelled"), KINDS)
def test_the_distribution_with_guesses_is_the_enumerated_one(
    tiny_lm: Build,
    singles: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    pairs: bool,
    labelled: bool,
) -> None:
    lm, sampling = copying(tiny_lm(singles, seed=1), 0.3), Sampling(3, temperature=0.8)
    grammar = Grammar(lm.vocabulary, pairs=pairs, labelled=labelled, max_symbols=LONGEST)
    rows = all_texts(lm, pairs, labelled)
    exact = log_prob_symbols(lm, [PREFIX] * len(rows), rows, sampling, grammar).exp()
    numbers = np.random.default_rng(1).random((SIZE, LONGEST))
    seen = counted(lm, monkeypatch)
    drawn = draw_symbols(lm, [PREFIX] * SIZE, numbers, sampling, grammar, ALWAYS)
    assert p_value(Counter(map(tuple, drawn)), rows, exact) > 1e-4
    assert max(int(took.max()) for took in seen) > 1  # guesses were right

    # The control: with a rule that takes a guess although another symbol was drawn, it is not.
    def generous(symbol_BQ: Tensor, draft_BD: Tensor) -> Tensor:
        if draft_BD.shape[1]:
            guessed_B = symbol_BQ[:, 1] >= 0
            symbol_BQ[:, 0] = torch.where(guessed_B, draft_BD[:, 0], symbol_BQ[:, 0])
        return 1 + (symbol_BQ[:, :-1] == draft_BD).long().cumprod(dim=1).sum(dim=1)

    monkeypatch.setattr(draw, "_taken", generous)
    wrong = draw_symbols(lm, [PREFIX] * SIZE, numbers, sampling, grammar, ALWAYS)
    assert p_value(Counter(map(tuple, wrong)), rows, exact) < 1e-4


def test_on_a_cpu_no_guesses_are_made_and_elsewhere_some() -> None:
    assert worth_on(torch.device("cpu")) == NEVER
    assert ALWAYS < worth_on(torch.device("cuda")) < NEVER
