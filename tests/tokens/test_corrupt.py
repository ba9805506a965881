"""Token noise: its rate, what it draws from, and that it is the same for a text each time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from calib_ebm.shapes import Encoded, Example
from calib_ebm.tokens.corrupt import corrupt_tokens

TOKENIZER: Any = SimpleNamespace(
    vocabulary={f"w{i}": i for i in range(50)}, special_ids=frozenset({0, 1, 2, 49})
)
TEXTS = [Example(f"dev-{i}", "", None, 0) for i in range(300)]


def encoded(pair: bool = False) -> list[Encoded]:
    rng = np.random.default_rng(0)
    draw = [rng.integers(3, 49, size=20).tolist() for _ in range(600)]
    return [Encoded(draw[i], draw[300 + i] if pair else None, i % 2) for i in range(300)]


def noised(rate: float, texts: list[Encoded], seed: int = 0) -> list[Encoded]:
    return corrupt_tokens(TOKENIZER, TEXTS, texts, rate, seed)


def test_a_share_of_the_tokens_is_replaced_by_content_tokens_alone() -> None:
    texts = encoded()
    worse = noised(0.2, texts)
    before = np.asarray([t.ids_a for t in texts])
    after = np.asarray([t.ids_a for t in worse])
    assert after.shape == before.shape
    assert not {*after.ravel().tolist()} & TOKENIZER.special_ids
    # 6,000 tokens, changed with .2 (1 - 1/46): mean 1173.9, standard deviation 30.7.
    assert abs((before != after).sum() - 6000 * 0.2 * 45 / 46) < 5 * 30.7
    drawn = np.bincount(after[before != after], minlength=50)[3:49]
    # Even over 46 tokens: chi-square with 45 degrees of freedom, mean 45, 5 deviations of 9.5.
    expected = drawn.sum() / 46
    assert ((drawn - expected) ** 2 / expected).sum() < 45 + 5 * 9.5
    assert [t.label for t in worse] == [t.label for t in texts]


def test_levels_are_nested_and_everything_depends_on_the_id() -> None:
    texts = encoded(pair=True)
    low, high, again = noised(0.1, texts), noised(0.3, texts), noised(0.1, texts)
    assert low == again != noised(0.1, texts, seed=1)
    for clean, slight, strong in zip(texts, low, high, strict=True):
        for name in ("ids_a", "ids_b"):
            tokens = zip(*(getattr(t, name) for t in (clean, slight, strong)), strict=True)
            assert all(b in (a, c) for a, b, c in tokens)
    assert corrupt_tokens(TOKENIZER, TEXTS[5:6], texts[5:6], 0.1, 0) == low[5:6]
    assert any(t.ids_b != s.ids_b for t, s in zip(texts, low, strict=True))
