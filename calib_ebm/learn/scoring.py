"""Logits and energies of texts, by one finished model or several, with or without dropout.

MC dropout (Gal and Ghahramani, ICML 2016): the mean of the softmax over passes with dropout on.
Deep ensembles (Lakshminarayanan et al., NeurIPS 2017): its mean over models of several seeds.
Either is handed on as the logarithm of the mean probability, of which the softmax is that
probability again, so that a calibrator scales the mean. Energies are those of the passes without
dropout, their mean over models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calib_ebm.classifier import EnergyClassifier
from calib_ebm.errors import InputError
from calib_ebm.learn.measure import Scored, Tell, score_set
from calib_ebm.learn.progress import counting
from calib_ebm.learn.team import here
from calib_ebm.shapes import Encoded, Example
from calib_ebm.text.corrupt import Corruption, corrupt_examples
from calib_ebm.tokens.corrupt import corrupt_tokens
from calib_ebm.tokens.tokenizer import encode_examples

Say = Callable[[str], None]


def log_mean_softmax(logits: Sequence[Tensor]) -> Tensor:
    """Log of the mean of softmax(logits) over M tables of N by C logits, in float64.

    >>> log_mean_softmax([torch.tensor([[0.0, 0.0]]), torch.tensor([[50.0, 0.0]])]).exp()
    tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    log_probs_MNC = torch.stack([each.double().log_softmax(dim=1) for each in logits])
    return log_probs_MNC.logsumexp(dim=0) - math.log(len(logits))


def combined(members: Sequence[Scored]) -> Scored:
    """What an ensemble says: mean probability as logits, mean energy where all have one."""
    if len(members) == 1:
        return members[0]
    energies = [member.energy_N for member in members if member.energy_N is not None]
    energy_N = None
    if len(energies) == len(members):
        energy_N = torch.stack([energy.double() for energy in energies]).mean(dim=0)
    return Scored(log_mean_softmax([member.logits_NC for member in members]), energy_N)


def dropout_scores(
    classifier: EnergyClassifier,
    texts: Sequence[Encoded],
    passes: int,
    seed: int,
    tell: Tell | None = None,
) -> Scored:
    """Score texts with dropout on, `passes` times, each time with a seed of its own.

    Ranks take these in turn, so that what is drawn does not depend on how many there are.
    """
    team = here()
    mine: dict[int, Tensor] = {}
    for number in range(team.rank, passes, team.world):
        own = 1_000_003 * seed + number
        scored = classifier.score_encoded(texts, with_dropout=True, seed=own, tell=tell)
        mine[number] = scored.logits_BC[scored.rows.argsort()]
    every = {number: part[number] for part in team.all_of(mine) for number in part}
    logits = [every[number] for number in range(passes)]
    return Scored(log_mean_softmax(logits), score_set(classifier, texts, seed, tell).energy_N)


def require_dropout(classifier: EnergyClassifier, passes: int) -> None:
    """Raise `InputError` for a number of passes that is none, or a model without any dropout."""
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
        raise InputError(
            f"mc_dropout is {passes!r}.", "a whole number from 1, or null", "Set mc_dropout=20."
        )
    rates = [m.p for m in classifier.network.modules() if isinstance(m, nn.Dropout)]
    if not any(rate > 0 for rate in rates):
        raise InputError(
            "mc_dropout is set, and the model was built without dropout: all passes are the same.",
            "a model with dropout",
            "Leave mc_dropout out, or train with dropout.",
        )


@dataclass(frozen=True)
class Scorer:
    """One way to score texts.

    Attributes:
        members: one classifier, or those of an ensemble.
        passes: with dropout; None: one pass without.
        seed: of the corruption and of the dropout.
        say: takes lines for the person, where there is no terminal to draw a bar on.
    """

    members: tuple[EnergyClassifier, ...]
    passes: int | None
    seed: int
    say: Say

    def read(
        self, examples: Sequence[Example], corruption: Corruption | None
    ) -> tuple[Example, ...]:
        """The texts as they are made tokens of; token noise comes after."""
        if corruption is None:
            return tuple(examples)
        return corrupt_examples(examples, corruption, self.seed)

    def __call__(
        self, examples: Sequence[Example], what: str, corruption: Corruption | None = None
    ) -> tuple[Scored, int]:
        """Scores of texts in their order, and how many of them were cut in length.

        Args:
            examples: the texts.
            what: they are, in a word, for who waits.
            corruption: to be done to them before.
        """
        examples = self.read(examples, corruption)
        times = 1 if self.passes is None else 1 + -(-self.passes // here().world)
        with counting(
            f"scoring {what}", len(self.members) * times * len(examples), self.say
        ) as tell:
            found = [self._by(one, examples, corruption, tell) for one in self.members]
        return combined([scored for scored, _ in found]), max(cut for _, cut in found)

    def _by(
        self,
        classifier: EnergyClassifier,
        examples: Sequence[Example],
        corruption: Corruption | None,
        tell: Tell,
    ) -> tuple[Scored, int]:
        """The same by one member."""
        texts, cut = encode_examples(classifier.tokenizer, examples)
        if corruption is not None and corruption.kind == "tokens":
            texts = corrupt_tokens(
                classifier.tokenizer, examples, texts, corruption.rate, self.seed
            )
        if self.passes is None:
            return score_set(classifier, texts, self.seed, tell), cut
        return dropout_scores(classifier, texts, self.passes, self.seed, tell), cut
