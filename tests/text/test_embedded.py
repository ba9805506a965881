"""The embedded language: its P(x) and P(y|x) are exact, and its texts are drawn from them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from calib_ebm.errors import InputError
from calib_ebm.text import embedded
from calib_ebm.text.embedded import END, LABELS, Language, State, embedded_task

Node = Callable[..., dict[str, Any]]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Language]:
    """A language of four words, small enough to list all its texts; the same word in many slots.

    So nearly every text can be made along many paths, and most only by slips.
    """
    monkeypatch.setattr(embedded, "POSITIVE", "a")
    monkeypatch.setattr(embedded, "NEGATIVE", "b")
    monkeypatch.setattr(embedded, "NEUTRAL", "as")
    monkeypatch.setattr(embedded, "TOPICS", ("a", "b"))
    monkeypatch.setattr(embedded, "SINGULAR", {"det": "a b", "verb": "b"})
    monkeypatch.setattr(embedded, "PLURAL", {"det": "as", "verb": "bs a"})
    monkeypatch.setattr(embedded, "ADVERBS", {"bs": 1.5})
    monkeypatch.setattr(embedded, "NOT", "as")
    monkeypatch.setattr(embedded, "CONJUNCTIONS", "b")
    monkeypatch.setattr(embedded, "SLIP", 0.3)
    return Language


def strings(language: Language, lengths: range) -> Iterator[str]:
    """All sequences of words of some lengths."""
    for length in lengths:
        for words in itertools.product(language.vocabulary, repeat=length):
            yield " ".join(words)


def paths(language: Language, text: str) -> Iterator[float]:
    """The probability of every single path that writes the text: topic, arcs, slips or not."""
    words = text.split()
    starts = [(topic, 0, "det", 0) for topic in range(len(embedded.TOPICS))]

    def onwards(state: State, at: int, so_far: float) -> Iterator[float]:
        for arc in language.arcs(state):
            if arc.to == END:
                if at == len(words):
                    yield so_far * arc.prob
            elif at < len(words):
                slipped = language.slip / len(language.vocabulary)
                meant = (1 - language.slip) * arc.words.get(words[at], 0.0)
                for emitted in (slipped, meant):
                    if emitted > 0:
                        yield from onwards(arc.to, at + 1, so_far * arc.prob * emitted)

    for start in starts:
        yield from onwards(start, 0, 1 / len(starts))


def test_probabilities_of_all_texts_sum_to_one(tiny: Callable[..., Language]) -> None:
    language = tiny(seed=3, max_clauses=1)
    assert len(language.vocabulary) == 4
    probs = {text: math.exp(language.log_prob(text)) for text in strings(language, range(9))}
    assert sum(probs.values()) == pytest.approx(1.0, abs=1e-12)
    # A clause has four to six words, and any words may stand in it.
    assert {len(text.split()) for text, prob in probs.items() if prob > 0} == {4, 5, 6}
    assert sum(prob > 0 for prob in probs.values()) == 4**4 + 4**5 + 4**6


@pytest.mark.parametrize("max_clauses", [1, 2])
def test_the_forward_algorithm_is_the_sum_over_paths(
    max_clauses: int, tiny: Callable[..., Language]
) -> None:
    language = tiny(seed=1, max_clauses=max_clauses)
    rng = np.random.default_rng(0)
    texts = [language.draw(rng) for _ in range(12)] + ["a b a b", "bs bs bs bs bs"]
    for text in texts:
        listed = list(paths(language, text))
        assert language.log_prob(text) == pytest.approx(math.log(math.fsum(listed)), abs=1e-10)
        assert len(listed) > 4


def test_the_shipped_language_agrees_with_its_paths() -> None:
    language = Language(seed=0)
    rng = np.random.default_rng(1)
    texts = [text for text in (language.draw(rng) for _ in range(60)) if len(text.split()) < 7]
    assert len(texts) > 5
    for text in texts:
        listed = math.fsum(paths(language, text))
        assert language.log_prob(text) == pytest.approx(math.log(listed), abs=1e-10)


def counted(language: Language, draws: int) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(language.draw(rng) for _ in range(draws))


def fit(language: Language, counts: Counter[str]) -> float:
    """The p-value of a chi-square test of counts against P(x), rare texts taken together."""
    draws = counts.total()
    expected = {t: draws * math.exp(language.log_prob(t)) for t in strings(language, range(4, 7))}
    common = [text for text, number in expected.items() if number >= 5]
    observed = [counts[text] for text in common]
    wanted = [expected[text] for text in common]
    observed.append(draws - sum(observed))
    wanted.append(draws - sum(wanted))
    assert len(common) > 50
    return float(stats.chisquare(observed, wanted).pvalue)


def test_texts_are_drawn_as_often_as_they_should(tiny: Callable[..., Language]) -> None:
    language = tiny(seed=3, max_clauses=1)
    counts = counted(language, 8000)
    assert fit(language, counts) > 1e-4
    # The control: of another language of the same words they are no fair draw.
    assert fit(tiny(seed=4, max_clauses=1), counts) < 1e-9


def test_slips_count_in_the_draw(tiny: Callable[..., Language]) -> None:
    counts = counted(tiny(seed=3, max_clauses=1), 8000)
    assert fit(tiny(seed=3, max_clauses=1, slip=0.2), counts) < 1e-6


def test_what_may_follow_sums_to_one() -> None:
    language = Language(seed=2)
    reached, seen = list(language._starts()), set()
    while reached:
        state = reached.pop()
        if state in seen or state == END:
            continue
        seen.add(state)
        arcs = language.arcs(state)
        assert math.fsum(arc.prob for arc in arcs) == pytest.approx(1.0, abs=1e-12), state
        for arc in arcs:
            words = math.fsum(arc.words.values())
            assert words == pytest.approx(0.0 if arc.to == END else 1.0, abs=1e-12), (state, arc)
            reached.append(arc.to)
    assert {clause for _, clause, _, _ in seen} == {0, 1, 2}


def test_no_word_is_listed_twice_or_both_ways() -> None:
    """A word listed twice would lose probability, one with two weights would be two words."""
    lists = [embedded.POSITIVE.split(), embedded.NEGATIVE.split(), embedded.NEUTRAL.split()]
    lists += [embedded.NOT.split(), list(embedded.ADVERBS), embedded.CONJUNCTIONS.split()]
    together = [word for words in lists for word in words]
    assert len(set(together)) == len(together)
    for forms in (embedded.SINGULAR, embedded.PLURAL):
        for words in forms.values():
            assert len(set(words.split())) == len(words.split())
    nouns = [noun for topic in embedded.TOPICS for noun in topic.split()]
    assert set(nouns).isdisjoint(together)
    assert "but" in embedded.CONJUNCTIONS.split()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "the",
        lambda text: text + " zebra",
        lambda text: text.upper(),
        lambda text: text.replace(" ", "  ", 1),
        lambda text: " " + text,
        lambda text: " ".join([text] * 9),
        lambda text: " ".join(text.split()[:3]),
    ],
)
def test_what_is_no_text_has_no_probability(change: Callable[[str], str]) -> None:
    language = Language(seed=0)
    text = language.draw(np.random.default_rng(0))
    assert math.isfinite(language.log_prob(text))
    assert language.log_prob(change(text)) == -math.inf


def test_an_odd_word_anywhere_is_possible_and_unlikely() -> None:
    language = Language(seed=0)
    text = next(
        text
        for text in (language.draw(np.random.default_rng(seed)) for seed in range(99))
        if language.log_prob(text) > -25 and len(text.split()) >= 4
    )
    words = text.split()
    slipped = " ".join([words[2], *words[1:]])
    assert -math.inf < language.log_prob(slipped) < language.log_prob(text)


def weighted(language: Language) -> tuple[str, float]:
    """A strong adjective and its weight."""
    word = max(language.weights, key=lambda w: language.weights[w])
    return word, language.weights[word]


def test_the_sentiment_of_a_text_is_its_arithmetic() -> None:
    language = Language(seed=0)
    word, weight = weighted(language)
    worst = min(language.weights, key=lambda w: language.weights[w])
    adverb, factor = next(iter(embedded.ADVERBS.items()))
    negation = embedded.NOT.split()[0]
    other = next(w for w in embedded.CONJUNCTIONS.split() if w != "but")
    assert language.sentiment(f"the plot is {word}") == pytest.approx(weight)
    assert language.sentiment(f"the plot is {adverb} {word}") == pytest.approx(factor * weight)
    assert -weight <= language.sentiment(f"the plot is {negation} {word}") < 0
    both = weight + language.weights[worst]
    assert language.sentiment(f"the plot is {word} {other} the plot is {worst}") == pytest.approx(
        both
    )
    stressed = weight + embedded.CONTRAST * language.weights[worst]
    assert language.sentiment(f"the plot is {word} but the plot is {worst}") == pytest.approx(
        stressed
    )
    neutral = embedded.NEUTRAL.split()[0]
    assert language.sentiment(f"the {neutral} plot is {neutral}") == 0.0
    # What an adverb scales is the next adjective, and only that one, in its own clause.
    twice = f"the plot is {adverb} {word} {other} the plot is {word}"
    assert language.sentiment(twice) == pytest.approx((factor + 1) * weight)
    assert language.sentiment(f"the plot is {negation} {other} the plot is {word}") == (
        pytest.approx(weight)
    )


def test_label_probabilities_are_a_logistic_function_of_it() -> None:
    language = Language(seed=0)
    word, weight = weighted(language)
    negative, positive = language.label_probs(f"the plot is {word}")
    assert negative + positive == pytest.approx(1.0, abs=1e-15)
    log_odds = math.log(positive / negative)
    assert log_odds == pytest.approx(embedded.SENSITIVITY * weight, rel=1e-12)
    assert LABELS[1] == "positive"
    assert language.label_probs("the plot is") == (0.5, 0.5)


def test_labels_are_drawn_from_the_label_probabilities(node: Node) -> None:
    task = embedded_task(node("embedded", train_size=4000, dev_size=20), seed=0)
    assert task.truth is not None
    probs = np.array([task.truth.label_probs(e.text)[1] for e in task.train])
    labels = np.array([e.label for e in task.train])
    edges = np.quantile(probs, np.linspace(0, 1, 11)[1:-1])
    bins = np.digitize(probs, edges)
    surprise = sum(
        (labels - probs)[bins == b].sum() ** 2 / (probs * (1 - probs))[bins == b].sum()
        for b in range(10)
    )
    assert stats.chi2(10).sf(surprise) > 1e-4
    # The control: labels that were sure would be found out.
    sure = (probs > 0.5).astype(float)
    surprise = sum(
        (sure - probs)[bins == b].sum() ** 2 / (probs * (1 - probs))[bins == b].sum()
        for b in range(10)
    )
    assert stats.chi2(10).sf(surprise) < 1e-9


def test_both_labels_are_common_and_neither_is_sure() -> None:
    """Room for a classifier to be right, and room to be wrong: what the task exists for."""
    language, rng = Language(seed=0), np.random.default_rng(0)
    probs = np.array([language.label_probs(language.draw(rng))[1] for _ in range(1000)])
    assert 0.2 < probs.mean() < 0.8
    best = np.maximum(probs, 1 - probs).mean()
    assert 0.65 < best < 0.97


def test_the_seed_draws_train_and_leaves_dev(node: Node) -> None:
    config = node("embedded", train_size=50, dev_size=40)
    first, again, other = (embedded_task(config, seed) for seed in (0, 0, 1))
    assert first.train == again.train
    assert first.digests == again.digests
    assert [e.text for e in first.train] != [e.text for e in other.train]
    assert first.dev == other.dev
    assert first.digests["dev"] == other.digests["dev"]
    assert first.digests["train"] != other.digests["train"]
    assert other.truth is not None
    assert first.truth is not None
    text = first.dev[0].text
    assert first.truth.log_prob(text) == other.truth.log_prob(text)


def test_train_and_dev_are_draws_of_their_own(node: Node) -> None:
    """Also where the seed of the training texts is that of the language."""
    config = node("embedded", train_size=50, dev_size=50, language_seed=0)
    task = embedded_task(config, seed=0)
    dev = {e.id: e.text for e in task.dev}
    assert [e.text for e in task.train] != [dev[f"dev-{row}"] for row in range(50)]


def test_the_language_has_a_seed_of_its_own(node: Node) -> None:
    one, two = Language(seed=0), Language(seed=1)
    assert one.vocabulary == two.vocabulary
    assert one.weights != two.weights
    text = one.draw(np.random.default_rng(0))
    assert one.log_prob(text) != two.log_prob(text)
    assert Language(seed=0).log_prob(text) == one.log_prob(text)
    tasks = [embedded_task(node("embedded", language_seed=seed), seed=0) for seed in (0, 1)]
    assert tasks[0].digests["dev"] != tasks[1].digests["dev"]


def test_the_record_is_whole(node: Node) -> None:
    task = embedded_task(node("embedded", train_size=60, dev_size=41), seed=0)
    assert (task.name, task.labels, task.metrics) == ("embedded", LABELS, ("acc",))
    assert len(task.train) == 60
    assert len(task.dev) == 41
    assert {e.id for e in task.dev} == {f"dev-{row}" for row in range(41)}
    assert task.truth is not None
    for e in (*task.train, *task.dev):
        assert e.text_pair is None
        assert e.label in (0, 1)
        assert math.isfinite(task.truth.log_prob(e.text))


def test_texts_keep_to_the_number_of_clauses() -> None:
    rng = np.random.default_rng(0)
    for max_clauses in (1, 3):
        language = Language(seed=0, max_clauses=max_clauses)
        lengths = [len(language.draw(rng).split()) for _ in range(200)]
        assert min(lengths) == 4
        assert 6 * (max_clauses - 1) < max(lengths) <= 7 * max_clauses - 1


@pytest.mark.parametrize("name", ["train_size", "dev_size"])
def test_too_small_a_task_is_refused(name: str, node: Node) -> None:
    with pytest.raises(InputError, match=f"{name} is 19"):
        embedded_task(node("embedded", **{name: 19}), seed=0)


@pytest.mark.parametrize(("key", "value"), [("max_clauses", 0), ("slip", 0.0), ("slip", 1.0)])
def test_a_language_that_cannot_be_is_refused(node: Node, key: str, value: float) -> None:
    with pytest.raises(InputError, match=f"task.{key}"):
        embedded_task(node("embedded", **{key: value}), seed=0)


def test_slips_and_clauses_are_settings(node: Node) -> None:
    texts = [e.text for e in embedded_task(node("embedded", max_clauses=1), seed=0).train]
    assert max(len(text.split()) for text in texts) <= 6
    often = Language(0, slip=0.5)
    assert often.log_prob("good good good good") > Language(0).log_prob("good good good good")
