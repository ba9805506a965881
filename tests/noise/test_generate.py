"""What the benchmark compares with, transformers' `generate`, draws from our very distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from calib_ebm.noise.draw import draw_symbols
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.shapes import Encoded

Build = Callable[..., NoiseLm]
SIZE, LONGEST = 3000, 4


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import bench.generated

    return bench.generated


def p_value(left: list[list[int]], right: list[list[int]]) -> float:
    """Two-sample chi-square of which texts there are, rare ones taken together."""
    sides = [list(map(tuple, left)), list(map(tuple, right))]
    names = sorted({*sides[0], *sides[1]})
    table = np.asarray([[side.count(name) for name in names] for side in sides])
    often = table.sum(axis=0) >= 16
    bins = np.column_stack([table[:, often], table[:, ~often].sum(axis=1)])
    return float(chi2_contingency(bins[:, bins.sum(axis=0) > 0]).pvalue)


@pytest.mark.parametrize("pairs", [False, True])
def test_generate_draws_what_we_draw(
    tiny_lm: Build, singles: list[Encoded], generated: ModuleType, pairs: bool
) -> None:
    lm, sampling = tiny_lm(singles, seed=1), Sampling(3, temperature=0.8)
    grammar = Grammar(lm.vocabulary, pairs=pairs, labelled=False, max_symbols=LONGEST)
    prefixes = [[2, 0], [1, 1, 1], []] * (SIZE // 3)  # ragged: generate pads them on the left
    torch.manual_seed(0)
    theirs = generated.generate_symbols(lm, prefixes, sampling, grammar, 500)
    numbers = np.random.default_rng(0).random((SIZE, LONGEST))
    ours = draw_symbols(lm, prefixes, numbers, sampling, grammar)
    other = draw_symbols(lm, prefixes, numbers, Sampling(3, temperature=1.2), grammar)
    for start in range(3):  # of each prefix
        assert p_value(ours[start::3], theirs[start::3]) > 1e-3
        # The control: this many draws tell it from another temperature.
        assert p_value(other[start::3], theirs[start::3]) < 1e-3
