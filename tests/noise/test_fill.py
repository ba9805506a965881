from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from calib_ebm.noise.fill import draw_fill, fill_batch
from calib_ebm.noise.filters import Sampling, filtered_log_probs
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import stream
from calib_ebm.noise.modes import Lengths, MlmFill
from calib_ebm.noise.sampler import Sampler
from calib_ebm.noise.vocabulary import LmText
from calib_ebm.shapes import Encoded

Build = Callable[..., NoiseLm]
NO_SLOTS = np.zeros(0, dtype=bool)


def slots(*flags: int) -> np.ndarray:
    return np.asarray(flags, dtype=bool)


def test_texts_stand_in_the_frame_with_their_slots_masked(
    tiny_lm: Build, singles: list[Encoded]
) -> None:
    lm = tiny_lm(singles, masked=True)
    s = lm.vocabulary.symbols
    texts = [LmText([0, 1], None, 0), LmText([2], [1, 0], 1)]
    batch = fill_batch(lm, texts, [(slots(0, 1), NO_SLOTS), (slots(1), slots(0, 1))])
    assert batch.input_ids_BT.tolist() == [
        [s.start, 0, s.mask, s.end, s.pad, s.pad],
        [s.start, s.mask, s.pair, 1, s.mask, s.end],
    ]
    assert batch.types_BT.tolist() == [[0] * 6, [0, 0, 0, 1, 1, 1]]
    assert batch.mask_BT.sum(dim=1).tolist() == [4, 6]


def test_slots_are_drawn_at_their_own_probabilities_and_the_rest_stays(
    tiny_lm: Build, singles: list[Encoded]
) -> None:
    lm = tiny_lm(singles, masked=True).eval()
    size, sampling = 3000, Sampling(2)
    text, masked = LmText([0, 1, 2], None, 0), (slots(0, 1, 0), NO_SLOTS)
    numbers = np.random.default_rng(0).random((size, 3))
    filled = draw_fill(lm, [text] * size, [masked] * size, numbers, sampling)
    assert all((t.ids_a[0], t.ids_a[2], len(t.ids_a)) == (0, 2, 3) for t in filled)
    batch = fill_batch(lm, [text], [masked])
    with torch.no_grad():
        logits = lm.model(input_ids=batch.input_ids_BT).logits[batch.slot_BT]
    banned = ~torch.from_numpy(lm.vocabulary.drawable_V)
    exact = filtered_log_probs(logits, sampling, banned).exp()[0]
    share = torch.bincount(torch.tensor([t.ids_a[1] for t in filled]), minlength=len(exact)) / size
    error = (exact * (1 - exact) / size).sqrt()
    assert bool(((share - exact).abs() <= 5 * error).all())
    assert int((exact > 0).sum()) == 2


def test_neighbours_do_not_change_what_is_filled_in(tiny_lm: Build, pairs: list[Encoded]) -> None:
    lm = tiny_lm(pairs, masked=True).eval()
    texts = [lm.vocabulary.text(text) for text in pairs]
    masked = [MlmFill(0.6).slots(text, stream(0, 0, i)) for i, text in enumerate(texts)]
    numbers = np.random.default_rng(1).random((3, 6))
    together = draw_fill(lm, texts, masked, numbers, Sampling(0))
    alone = [
        draw_fill(lm, [texts[i]], [masked[i]], numbers[i : i + 1], Sampling(0))[0] for i in range(3)
    ]
    assert together == alone


def test_what_the_masked_lm_does_not_know_stays_where_it_is_not_masked(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    lm = tiny_lm(singles, masked=True)
    unseen = [Encoded([9, 3, 10], None, 1)] * 50
    sampler = Sampler(lm, MlmFill(0.5), Sampling(2), unseen, tokenizer, Lengths(), seed=0)
    drawn, counts = sampler.draw(range(50), batch_size=16)
    kept = [text.ids_a[0] == 9 for text, _ in drawn]
    assert 5 < sum(kept) < 45
    assert all(token in (3, 4, 5, 9, 10) for text, _ in drawn for token in text.ids_a)
    assert all(len(text.ids_a) == 3 and text.label == -1 for text, _ in drawn)
    assert {source for _, source in drawn} == set(range(50))
    assert counts.drawn == 50
