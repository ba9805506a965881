"""The embedded task: a small language whose P(x) and P(y|x) are known exactly.

No real data set can show the true calibration error or the true energy; this one can.  Texts are
one to three clauses about one hidden topic,

    det (adjective) noun verb (not | adverb) adjective  [conjunction det ...]

with number agreement between determiner, noun and verb, and with words that belong to the topic.
Now and then a word slips: any word of the vocabulary may stand anywhere, so P(x) > 0 for every
sequence of words that reaches an end.  Hidden are the topic and whether a word slipped, so P(x) is
a sum over paths, done exactly by the forward algorithm.

The label is sentiment, a noisy function of the words: P(y=1|x) is a logistic function of the summed
weights of adjectives, which adverbs scale, `not` turns round and `but` stresses.  The best possible
classifier is therefore right about 85% of the time, and a model that is surer than that is
overconfident.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.task import TaskTexts

POSITIVE = (
    "good great lovely charming fine bright warm clever "
    "fresh superb gentle honest crisp vivid neat rich"
)
NEGATIVE = (
    "bad awful dull boring weak cold clumsy stale poor grim noisy messy bland cheap slow flat"
)
NEUTRAL = "long old new small big early late quiet simple strange local recent"
TOPICS = (
    "plot actor scene score ending script joke camera",
    "soup waiter table dessert wine menu kitchen sauce",
    "room bed pool lobby view towel lamp breakfast",
)
SINGULAR = {"det": "the this that my our its", "verb": "was is seemed feels looks remains"}
PLURAL = {"det": "the these those my our its", "verb": "were are seemed feel look remain"}
ADVERBS = {"very": 1.6, "really": 1.4, "quite": 1.1, "rather": 0.8, "fairly": 0.7, "slightly": 0.4}
NOT = "not never hardly"
CONJUNCTIONS = "and but while because"

SLIP = 0.02
"""Share of words that are drawn from the whole vocabulary instead of the slot's."""
CONTRAST = 1.6
"""How much more a clause counts when it follows `but`."""
SENSITIVITY = 1.15
"""Log-odds of the label per unit of summed sentiment."""
LABELS = ("negative", "positive")

State = tuple[int, int, str, int]  # topic, clause, slot, 0 singular | 1 plural
END: State = (-1, -1, "end", 0)


@dataclass(frozen=True)
class Arc:
    """One step of the automaton: taken with `prob`, it emits one of `words` and leads to `to`."""

    prob: float
    words: Mapping[str, float]
    to: State


def _zipf(words: Sequence[str], rng: np.random.Generator) -> dict[str, float]:
    """Probabilities falling as 1/(rank + 1), the words ranked by `rng`."""
    weight = 1.0 / (1.0 + rng.permutation(len(words)))
    return dict(zip(words, (weight / weight.sum()).tolist(), strict=True))


class Language:
    """The automaton with its exact probabilities.

    Args:
        seed: draws the words' frequencies within each topic and the weights of the adjectives.
        max_clauses: clauses a text may have at most.
        slip: share of words that slip; None: `SLIP`.
    """

    def __init__(self, seed: int = 0, max_clauses: int = 3, slip: float | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.max_clauses = max_clauses
        self.slip = SLIP if slip is None else slip
        self.weights = self._draw_weights(rng)
        self._slots = [self._draw_topic(nouns.split(), rng) for nouns in TOPICS]
        self._fixed = {
            "not": _zipf(NOT.split(), rng),
            "adverb": _zipf(list(ADVERBS), rng),
            "conjunction": _zipf(CONJUNCTIONS.split(), rng),
        }
        words = {w for slots in self._slots for slot in slots.values() for w in slot}
        words |= {w for slot in self._fixed.values() for w in slot}
        self.vocabulary: tuple[str, ...] = tuple(sorted(words))
        self._arcs: dict[State, list[Arc]] = {}

    @staticmethod
    def _draw_weights(rng: np.random.Generator) -> dict[str, float]:
        """Sentiment of each adjective: strong to weak ones on both sides, neutral ones at 0."""
        weights = dict.fromkeys(NEUTRAL.split(), 0.0)
        for sign, words in ((1.0, POSITIVE.split()), (-1.0, NEGATIVE.split())):
            sizes = np.linspace(0.4, 2.0, len(words))
            weights |= dict(zip(words, (sign * rng.permutation(sizes)).tolist(), strict=True))
        return weights

    @staticmethod
    def _draw_topic(nouns: list[str], rng: np.random.Generator) -> dict[str, dict[str, float]]:
        """The topic's distribution over the words of each slot, singular and plural."""
        slots = {"adjective": _zipf((POSITIVE + " " + NEGATIVE).split(), rng)}
        slots["attribute"] = _zipf(NEUTRAL.split(), rng)
        for number, forms in (("0", SINGULAR), ("1", PLURAL)):
            slots["det" + number] = _zipf(forms["det"].split(), rng)
            slots["verb" + number] = _zipf(forms["verb"].split(), rng)
            slots["noun" + number] = _zipf([n + "s" * (number == "1") for n in nouns], rng)
        return slots

    def arcs(self, state: State) -> list[Arc]:
        """What may follow in `state`; the probabilities of the arcs sum to 1."""
        if state not in self._arcs:
            self._arcs[state] = self._build_arcs(state)
        return self._arcs[state]

    def _build_arcs(self, state: State) -> list[Arc]:
        topic, clause, slot, number = state
        words = self._slots[topic]

        def go(slot_to: str, number_to: int = number, clause_to: int = clause) -> State:
            return (topic, clause_to, slot_to, number_to)

        if slot == "det":
            return [
                Arc(0.6, words["det0"], go("noun", 0)),
                Arc(0.4, words["det1"], go("noun", 1)),
            ]
        if slot == "noun":
            return [
                Arc(0.75, words[f"noun{number}"], go("verb")),
                Arc(0.25, words["attribute"], go("bare noun")),
            ]
        if slot == "bare noun":
            return [Arc(1.0, words[f"noun{number}"], go("verb"))]
        if slot == "verb":
            return [Arc(1.0, words[f"verb{number}"], go("complement"))]
        if slot == "complement":
            return [
                Arc(0.2, self._fixed["not"], go("adjective")),
                Arc(0.3, self._fixed["adverb"], go("adjective")),
                Arc(0.5, words["adjective"], go("after")),
            ]
        if slot == "adjective":
            return [Arc(1.0, words["adjective"], go("after"))]
        assert slot == "after", state
        if clause + 1 == self.max_clauses:
            return [Arc(1.0, {}, END)]
        return [Arc(0.45, {}, END), Arc(0.55, self._fixed["conjunction"], go("det", 0, clause + 1))]

    def _starts(self) -> list[State]:
        return [(topic, 0, "det", 0) for topic in range(len(TOPICS))]

    def _emission(self, arc: Arc, word: str) -> float:
        """Probability that an arc emits `word`, slips included."""
        return (1 - self.slip) * arc.words.get(word, 0.0) + self.slip / len(self.vocabulary)

    def draw(self, rng: np.random.Generator) -> str:
        """One text from P(x)."""
        state = self._starts()[rng.integers(len(TOPICS))]
        text: list[str] = []
        while True:
            arcs = self.arcs(state)
            arc = arcs[rng.choice(len(arcs), p=[a.prob for a in arcs])]
            if arc.to == END:
                return " ".join(text)
            slipped = rng.random() < self.slip
            words = self.vocabulary if slipped else list(arc.words)
            weights = None if slipped else list(arc.words.values())
            text.append(str(rng.choice(words, p=weights)))
            state = arc.to

    def log_prob(self, text: str) -> float:
        """The exact log P(x) in nats, by the forward algorithm; -inf where x cannot occur."""
        words = text.split()
        if not set(words) <= set(self.vocabulary) or " ".join(words) != text:
            return -math.inf
        alpha = dict.fromkeys(self._starts(), 1.0 / len(TOPICS))
        for word in words:
            following: dict[State, float] = {}
            for state, mass in alpha.items():
                for arc in self.arcs(state):
                    if arc.to != END:
                        step = mass * arc.prob * self._emission(arc, word)
                        following[arc.to] = following.get(arc.to, 0.0) + step
            alpha = following
        total = sum(
            mass * arc.prob
            for state, mass in alpha.items()
            for arc in self.arcs(state)
            if arc.to == END
        )
        return math.log(total) if total > 0 else -math.inf

    def sentiment(self, text: str) -> float:
        """Summed weight of the adjectives; adverbs scale, `not` turns round, `but` stresses."""
        total, scale, stress = 0.0, 1.0, 1.0
        for word in text.split():
            if word in self.weights:
                total += stress * scale * self.weights[word]
                scale = 1.0
            elif word in NOT.split():
                scale *= -0.8
            elif word in ADVERBS:
                scale *= ADVERBS[word]
            elif word in CONJUNCTIONS.split():
                scale, stress = 1.0, CONTRAST if word == "but" else 1.0
        return total

    def label_probs(self, text: str) -> tuple[float, float]:
        """The exact P(y|x), in the order of `LABELS`."""
        positive = 1.0 / (1.0 + math.exp(-SENSITIVITY * self.sentiment(text)))
        return (1.0 - positive, positive)


def _examples(language: Language, split: str, size: int, seed: int) -> tuple[Example, ...]:
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    texts = [language.draw(rng) for _ in range(size)]
    labels = [int(rng.random() < language.label_probs(text)[1]) for text in texts]
    return tuple(
        Example(f"{split}-{row}", text, None, label)
        for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    )


def embedded_task(config: Mapping[str, Any], seed: int) -> TaskTexts:
    """The task drawn from the language.

    Args:
        config: `train_size`, `dev_size` (texts to draw), `language_seed`, `max_clauses`, `slip`.
        seed: draws the training texts, so that runs with other seeds are replications; dev stays.

    Raises:
        InputError: for sizes too small to train or measure on.
    """
    sizes = {name: int(config[name]) for name in ("train_size", "dev_size")}
    for name, size in sizes.items():
        if size < 20:
            raise InputError(
                f"task.{name} is {size}.", "a whole number from 20", f"Set task.{name}=2000."
            )
    clauses, slip = int(config["max_clauses"]), float(config["slip"])
    if clauses < 1 or not 0 < slip < 1:
        raise InputError(
            f"task.max_clauses is {clauses} and task.slip is {slip}.",
            "a whole number from 1, and a number between 0 and 1",
            "Set task.max_clauses=3 and task.slip=0.02.",
        )
    language = Language(int(config["language_seed"]), clauses, slip)
    return TaskTexts(
        name=str(config["name"]),
        labels=LABELS,
        metrics=("acc",),
        train=_examples(language, "train", sizes["train_size"], seed),
        dev=_examples(language, "dev", sizes["dev_size"], int(config["language_seed"])),
        truth=language,
    )
