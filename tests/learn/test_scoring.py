"""Ensembles and MC dropout: means of probabilities, on a small model made on the spot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from calib_ebm.classifier import EnergyClassifier
from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.learn.measure import Scored, score_set
from calib_ebm.learn.progress import counting
from calib_ebm.learn.scoring import (
    Scorer,
    combined,
    dropout_scores,
    log_mean_softmax,
    require_dropout,
)
from calib_ebm.learn.team import Team
from calib_ebm.shapes import Example
from calib_ebm.text.corrupt import Corruption
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples, train_tokenizer

TEXTS = ("a fine film", "a dull film and a long one", "the story is fine", "dull")
EXAMPLES = tuple(Example(f"dev-{i}", text, None, i % 2) for i, text in enumerate(TEXTS))


def classifier(seed: int, dropout: float = 0.3, energy: str = "hidden") -> EnergyClassifier:
    tokenizer = TextTokenizer(train_tokenizer(TEXTS * 4, 300), 16)
    torch.manual_seed(seed)
    model = build_small_encoder(
        ("bad", "good"),
        len(tokenizer.hf),
        tokenizer.pad_id,
        16,
        layers=1,
        width=16,
        heads=2,
        dropout=dropout,
    )
    network = EnergyNetwork(model, build_energy(energy, 16))
    return EnergyClassifier(network, tokenizer, ("bad", "good"), energy)


def test_the_mean_is_of_probabilities_and_not_of_logits() -> None:
    logits = [torch.randn(5, 3), 4 * torch.randn(5, 3), torch.full((5, 3), -800.0)]
    mean_NC = sum(each.double().softmax(dim=1) for each in logits) / 3
    torch.testing.assert_close(log_mean_softmax(logits).softmax(dim=1), mean_NC)
    torch.testing.assert_close(log_mean_softmax(logits).exp(), mean_NC)
    of_logits_NC = sum(each.double() for each in logits) / 3
    assert not torch.allclose(of_logits_NC.softmax(dim=1), mean_NC)  # the control


def test_an_ensemble_of_a_model_with_itself_is_the_model() -> None:
    one = classifier(0)
    alone, _ = Scorer((one,), None, 0, print)(EXAMPLES, "all")
    twice, _ = Scorer((one, one), None, 0, print)(EXAMPLES, "all")
    torch.testing.assert_close(
        alone.logits_NC.double().softmax(dim=1), twice.logits_NC.softmax(dim=1), atol=1e-6, rtol=0
    )
    assert alone.energy_N is not None and twice.energy_N is not None
    torch.testing.assert_close(alone.energy_N.double(), twice.energy_N)
    other, _ = Scorer((one, classifier(1)), None, 0, print)(EXAMPLES, "all")
    assert not torch.allclose(other.logits_NC, twice.logits_NC, atol=1e-4)
    assert combined((alone, Scored(alone.logits_NC, None))).energy_N is None


def test_dropout_passes_are_seeded_and_their_mean_is_theirs() -> None:
    one = classifier(0)
    texts, _ = encode_examples(one.tokenizer, EXAMPLES)
    plain = score_set(one, texts)
    state = torch.random.get_rng_state()
    first, again, other = (dropout_scores(one, texts, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers
    assert torch.equal(first.logits_NC, again.logits_NC)
    assert not torch.equal(first.logits_NC, other.logits_NC)
    assert not torch.allclose(
        first.logits_NC.softmax(1), plain.logits_NC.double().softmax(1), atol=1e-4
    )
    assert first.energy_N is not None and plain.energy_N is not None
    assert torch.equal(first.energy_N, plain.energy_N)  # of a pass without dropout
    assert not one.network.training
    assert torch.equal(score_set(one, texts).logits_NC, plain.logits_NC)


def test_many_passes_come_near_their_expectation() -> None:
    one = classifier(0)
    texts, _ = encode_examples(one.tokenizer, EXAMPLES)
    halves = [dropout_scores(one, texts, 300, seed).logits_NC.softmax(1) for seed in (1, 2)]
    few = [dropout_scores(one, texts, 2, seed).logits_NC.softmax(1) for seed in (1, 2)]
    assert (halves[0] - halves[1]).abs().max() < (few[0] - few[1]).abs().max()


def test_without_dropout_all_passes_are_the_same_and_that_is_refused() -> None:
    with pytest.raises(InputError, match="without dropout"):
        require_dropout(classifier(0, dropout=0.0), 20)
    for passes in (0, -1, True):
        with pytest.raises(InputError, match="mc_dropout is"):
            require_dropout(classifier(0), passes)
    require_dropout(classifier(0), 1)


@pytest.mark.parametrize(("kind", "rate"), [("tokens", 0.9), ("typos", 0.9), ("truncate", 0.3)])
def test_each_corruption_reaches_the_model(kind: str, rate: float) -> None:
    scorer = Scorer((classifier(0),), None, 0, print)
    clean, _ = scorer(EXAMPLES, "all")
    worse, again = (scorer(EXAMPLES, "worse", Corruption(kind, rate))[0] for _ in range(2))
    assert torch.equal(worse.logits_NC, again.logits_NC)
    assert not torch.allclose(worse.logits_NC, clean.logits_NC, atol=1e-6)


def test_texts_that_are_cut_are_counted() -> None:
    long: Sequence[Example] = (Example("dev-9", "a fine film " * 20, None, 0), *EXAMPLES)
    assert Scorer((classifier(0),), None, 0, print)(long, "long ones")[1] == 1


@pytest.mark.parametrize(("members", "passes"), [(1, None), (2, None), (2, 3)])
def test_who_waits_is_told_how_far_it_is(
    members: int, passes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calib_ebm.learn.progress.SECONDS", 0.0)
    said: list[str] = []
    models = tuple(classifier(seed) for seed in range(members))
    for one in models:
        one.tokens_per_pass = 1
    Scorer(models, passes, 0, said.append)(EXAMPLES, "films")
    total = members * (1 + (passes or 0)) * len(EXAMPLES)
    heads = [line.split(",")[0] for line in said]
    assert heads == [f"scoring films: {done} of {total}" for done in range(1, total)]
    assert all("texts/s" in line and " left" in line for line in said)


def test_only_the_first_process_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calib_ebm.learn.progress.SECONDS", 0.0)
    monkeypatch.setattr("calib_ebm.learn.progress.here", lambda: Team(1, 2))
    said: list[str] = []
    with counting("scoring films", 2, said.append) as tell:
        tell(1)
    assert said == []
    monkeypatch.setattr("calib_ebm.learn.progress.here", lambda: Team(0, 2))
    with counting("scoring films", 2, said.append) as tell:
        tell(1)
    assert len(said) == 1
