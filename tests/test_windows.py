"""Windows of texts, scored in passes of similar length: the scores of an ordinary pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib_ebm.calibration.calibrators import calibrator_from_state
from calib_ebm.classifier import EnergyClassifier
from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.shapes import Example
from calib_ebm.tokens.order import by_tokens
from calib_ebm.tokens.tokenizer import TextTokenizer, train_tokenizer
from calib_ebm.windows import WindowScorer

WORDS = ["a cat sat on the mat", "it", "the film was good and it was good", "zebra", "a dull film"]
TEXTS = [" ".join(WORDS[: 1 + n % 4]) + " it" * (n % 11) for n in range(40)]
STATE = {"name": "temperature", "temperature": 1.7, "lower": 0.01, "upper": 100.0}
Build = Callable[..., EnergyClassifier]


def classifier(energy: str = "sharp_hidden", max_length: int = 24) -> EnergyClassifier:
    tokenizer = TextTokenizer(train_tokenizer(WORDS * 2, 280), max_length)
    torch.manual_seed(0)
    model = build_small_encoder(
        ("bad", "fine", "good"),
        len(tokenizer.hf),
        tokenizer.pad_id,
        max_length,
        layers=2,
        width=16,
        heads=2,
        dropout=0.1,
    )
    with torch.no_grad():  # so that texts differ in their logits
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 12
    network = EnergyNetwork(model, build_energy(energy, 16)).eval()
    calibrator = calibrator_from_state(STATE)
    return EnergyClassifier(network, tokenizer, ("bad", "fine", "good"), energy, calibrator)


def examples(texts: list[str], pairs: list[str | None] | None = None) -> list[Example]:
    both = zip(texts, pairs or [None] * len(texts), strict=True)
    return [Example("", text, pair, -1) for text, pair in both]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_batches_by_tokens_hold_all_and_pad_little(lengths: list[int], most: int) -> None:
    batches = by_tokens(lengths, most)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(lengths)
    for batch, following in itertools.pairwise([*batches, []]):
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= most
        if following:  # no room was left for the next one
            assert (len(batch) + 1) * lengths[following[0]] > most


@pytest.mark.parametrize("energy", ["none", "hidden", "scalar"])
@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_a_window_has_the_scores_of_its_texts_in_their_order(energy: str, tokens: int) -> None:
    one = classifier(energy)
    found = WindowScorer(one.network, one.tokenizer, tokens).score(examples(TEXTS))
    logits_NC, energy_N = one.score(TEXTS)
    torch.testing.assert_close(found.logits_BC, logits_NC, rtol=1e-4, atol=1e-4)
    assert (found.logits_BC - logits_NC.flip(0)).abs().max() > 0.1  # the control
    assert (found.energy_B is None) == (energy == "none")
    if energy_N is not None:
        torch.testing.assert_close(found.energy_B, energy_N, rtol=1e-4, atol=1e-4)
    longer = [len(one.tokenizer.encode_pieces(text)) > 22 for text in TEXTS]
    assert found.cut == sum(longer) > 0


def test_pairs_and_single_texts_stand_in_one_window() -> None:
    one = classifier("scalar")
    pairs = [None if n % 3 else "the mat" for n in range(len(TEXTS))]
    found = WindowScorer(one.network, one.tokenizer).score(examples(TEXTS, pairs))
    for row in (0, 1, 3, 5):
        pair = pairs[row]
        logits_1C, _ = one.score([TEXTS[row]], None if pair is None else [pair])
        torch.testing.assert_close(found.logits_BC[row], logits_1C[0], rtol=1e-4, atol=1e-4)


def test_a_window_is_the_same_whatever_was_scored_before() -> None:
    one = classifier("self_sampled")  # which draws
    scorer = WindowScorer(one.network, one.tokenizer)
    first = scorer.score(examples(TEXTS), seed=3)
    state = torch.random.get_rng_state()
    scorer.score(examples(TEXTS[:7]), seed=1)
    again, other = (scorer.score(examples(TEXTS), seed=seed) for seed in (3, 4))
    assert first.energy_B is not None and other.energy_B is not None
    assert torch.equal(first.logits_BC, again.logits_BC)
    assert torch.equal(first.energy_B, again.energy_B if again.energy_B is not None else state)
    assert not torch.equal(first.energy_B, other.energy_B)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers


def test_bf16_is_near_and_not_the_same() -> None:
    one = classifier("hidden")
    exact = WindowScorer(one.network, one.tokenizer).score(examples(TEXTS)).logits_BC
    rough = WindowScorer(one.network, one.tokenizer, bf16=True).score(examples(TEXTS)).logits_BC
    assert rough.dtype == torch.float32
    assert 1e-5 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_nothing_keeps_a_graph() -> None:
    one = classifier("scalar")
    found = WindowScorer(one.network, one.tokenizer).score(examples(TEXTS))
    assert not found.logits_BC.requires_grad and not one.network.training


# -------------------------------------------------------------------------------- a stream of texts


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_a_stream_gives_what_predict_proba_and_energy_give(window: int) -> None:
    one = classifier("hidden")
    found = list(one.stream(iter(TEXTS), window=window))
    probs_NC, energy_N = one.predict_proba(TEXTS), one.energy(TEXTS)
    np.testing.assert_allclose([text.probs_C for text in found], probs_NC, atol=1e-5)
    np.testing.assert_allclose([text.energy for text in found], energy_N, rtol=1e-4, atol=1e-4)
    assert [text.label for text in found] == [one.labels[best] for best in probs_NC.argmax(1)]
    assert [text.confidence for text in found] == [text.probs_C.max() for text in found]


def test_a_stream_takes_pairs_and_knows_of_no_energy() -> None:
    one = classifier("none")
    pairs = ["the mat", "it was bad", "a", "film", "and"]
    found = list(one.stream(zip(WORDS, pairs, strict=True)))
    expected = one.predict_proba(WORDS, pairs)
    np.testing.assert_allclose([text.probs_C for text in found], expected, atol=1e-5)
    assert [text.energy for text in found] == [None] * 5
    assert list(one.stream([])) == []


def test_a_stream_reads_no_further_than_its_window() -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            yield "a film"

    stream = classifier().stream(endless(), window=8)
    for _ in range(8):
        next(stream)
    assert len(read) == 8
    next(stream)
    assert len(read) == 16
