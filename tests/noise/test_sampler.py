from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from calib_ebm.errors import InputError
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.modes import Half, Labelled, Lengths, Masked, MlmFill, Mode, Unconditional
from calib_ebm.noise.sampler import Sampler
from calib_ebm.noise.vocabulary import LmVocabulary, Translator
from calib_ebm.shapes import Encoded

Build = Callable[..., NoiseLm]


def sampler_of(
    lm: NoiseLm, mode: Mode, texts: list[Encoded], tokenizer: Any, top_k: int = 0, seed: int = 0
) -> Sampler:
    return Sampler(lm, mode, Sampling(top_k), texts, tokenizer, Lengths(12, 12), seed)


@pytest.mark.parametrize("mode", [Masked(0.4), Unconditional(), Labelled(), Half()], ids=str)
def test_a_sample_is_a_function_of_its_number(
    tiny_lm: Build, pairs: list[Encoded], tokenizer: Any, mode: Mode
) -> None:
    sampler = sampler_of(tiny_lm(pairs), mode, pairs, tokenizer)
    all_at_once, _ = sampler.draw(range(40), batch_size=16)
    in_parts = [drawn for n in range(40) for drawn in sampler.draw([n], batch_size=1)[0]]
    assert all_at_once == in_parts
    assert sampler.draw(range(40, 80), batch_size=16)[0] != all_at_once
    other_seed = sampler_of(tiny_lm(pairs), mode, pairs, tokenizer, seed=1)
    assert other_seed.draw(range(40), batch_size=16)[0] != all_at_once


def test_every_round_draws_around_each_text_once(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    sampler = sampler_of(tiny_lm(singles), Masked(0.4), singles, tokenizer)
    sources = [source for _, source in sampler.draw(range(12), batch_size=5)[0]]
    for start in (0, 4, 8):
        assert sorted(sources[start : start + 4]) == [0, 1, 2, 3]
    assert len({tuple(sources[start : start + 4]) for start in (0, 4, 8)}) > 1


def test_a_little_masking_leaves_noise_near_its_source(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    # A model that copies what it reads: after START it repeats the prefix. Here: that the prefix is
    # made of the very text that the sample names as its source.
    sampler = sampler_of(tiny_lm(singles), Masked(1e-9), singles, tokenizer)
    seen: list[list[int]] = []
    original = sampler.mode.prefix

    class Spy(Masked):
        def prefix(self, *args: Any) -> list[int]:
            seen.append(original(*args))
            return seen[-1]

    object.__setattr__(sampler, "mode", Spy(1e-9))
    drawn, _ = sampler.draw(range(4), batch_size=4)
    sources = [sampler.lm.vocabulary.to_lm(singles[source].ids_a) for _, source in drawn]
    assert seen == sources


def test_labels_are_kept_only_where_they_are_drawn(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    lm = tiny_lm(singles)
    labelled, _ = sampler_of(lm, Labelled(), singles, tokenizer).draw(range(200), 64)
    assert set(Counter(text.label for text, _ in labelled)) == {0, 1}
    unconditional, _ = sampler_of(lm, Unconditional(), singles, tokenizer).draw(range(20), 64)
    assert {text.label for text, _ in unconditional} == {-1}
    assert {source for _, source in unconditional} == {-1}


def test_noise_fits_what_the_classifier_reads(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    tokenizer.max_length = 6
    sampler = sampler_of(tiny_lm(singles, seed=2), Unconditional(), singles, tokenizer)
    drawn, counts = sampler.draw(range(200), 64)
    lengths = [len(text.ids_a) for text, _ in drawn]
    assert max(lengths) == 4
    assert 0 < counts.cut == lengths.count(4)
    assert counts.symbols == sum(lengths) + 200 - counts.cut


@pytest.mark.parametrize("mode", [Unconditional(), Labelled()], ids=str)
def test_log_prob_of_a_text_is_how_often_it_is_drawn(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any, mode: Mode
) -> None:
    tokenizer.max_length = 5
    sampler = sampler_of(tiny_lm(singles, seed=3), mode, singles, tokenizer, top_k=2)
    size = 4000
    drawn, _ = sampler.draw(range(size), 512)
    counts = Counter((tuple(text.ids_a), text.label) for text, _ in drawn)
    texts = [Encoded(list(ids), None, label) for ids, label in counts]
    probs = sampler.log_prob(texts).exp()
    share = torch.tensor(list(counts.values())) / size
    error = (probs * (1 - probs) / size).sqrt()
    assert bool(((share - probs).abs() <= 5 * error + 1e-3).all())
    assert float(probs.sum()) > 0.98


@pytest.mark.parametrize("mode", [Unconditional(), Labelled()], ids=str)
def test_the_probability_of_a_text_alone_sums_over_its_labels(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any, mode: Mode
) -> None:
    tokenizer.max_length = 5
    sampler = sampler_of(tiny_lm(singles, seed=3), mode, singles, tokenizer, top_k=2)
    size = 4000
    drawn, _ = sampler.draw(range(size), 512)
    counts = Counter(tuple(text.ids_a) for text, _ in drawn)
    texts = [Encoded(list(ids), None, -1) for ids in counts]
    probs = sampler.log_prob_of_texts(texts, 2).exp()
    share = torch.tensor(list(counts.values())) / size
    error = (probs * (1 - probs) / size).sqrt()
    assert bool(((share - probs).abs() <= 5 * error + 1e-3).all())
    if mode.labelled:  # the control: one label alone has less
        labelled = [text._replace(label=0) for text in texts]
        assert float(sampler.log_prob(labelled).exp().sum()) < 0.9


def test_what_is_never_drawn_has_no_probability(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    tokenizer.max_length = 5
    sampler = sampler_of(tiny_lm(singles), Unconditional(), singles, tokenizer)
    never = [
        Encoded([9], None, 0),  # a piece that no training text holds
        Encoded([], None, 0),
        Encoded([3, 3, 3, 3], None, 0),  # longer than any noise text
    ]
    assert sampler.log_prob(never).tolist() == [-torch.inf] * 3
    assert sampler.log_prob([Encoded([3, 3, 3], None, 0)]).isfinite().all()


def test_modes_without_an_exact_probability_say_so(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any
) -> None:
    sampler = sampler_of(tiny_lm(singles, masked=True), MlmFill(0.4), singles, tokenizer)
    with pytest.raises(InputError, match="log P_N is not known"):
        sampler.log_prob(singles)


class Swallowing:
    """A noise model's tokenizer whose text loses every other piece on the way back."""

    def __init__(self, tokenizer: Any, lost: int) -> None:
        self.tokenizer, self.lost = tokenizer, lost
        self.special_ids: frozenset[int] = frozenset()

    def encode_pieces(self, text: str) -> list[int]:
        return [i - 3 for i in self.tokenizer.encode_pieces(text)]

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode([i + 3 for i in ids if i >= self.lost])


@pytest.mark.parametrize("lost", [2, 3])
def test_noise_that_is_lost_on_the_way_over_text_is_drawn_again(
    tiny_lm: Build, singles: list[Encoded], tokenizer: Any, lost: int
) -> None:
    lm = tiny_lm(singles)
    own = lm.vocabulary
    translator = Translator(tokenizer, Swallowing(tokenizer, lost))  # type: ignore[arg-type]  # enough of one
    lm.vocabulary = LmVocabulary("decode_encode", own.symbols, (0, 0, 0), translator)
    sampler = sampler_of(lm, Unconditional(), singles, tokenizer)
    if lost == 3:
        with pytest.raises(InputError, match="200 of 200 noise texts came out empty"):
            sampler.draw(range(200), 64)
        return
    drawn, counts = sampler.draw(range(200), 64)
    assert len(drawn) == 200
    assert all(text.ids_a for text, _ in drawn)
    assert counts.dropped > 0
    assert drawn == [d for n in range(200) for d in sampler.draw([n], 1)[0]]
