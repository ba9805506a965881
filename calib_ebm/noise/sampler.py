"""Noise texts by number: sample i is a function of noise model, texts, seed and i."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calib_ebm.errors import InputError
from calib_ebm.noise.draw import draw_symbols, log_prob_symbols
from calib_ebm.noise.fill import draw_fill
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.gaps import GapGrammar, filled
from calib_ebm.noise.grammar import Grammar
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.masking import DRAWING, ORDERING, stream
from calib_ebm.noise.modes import Infill, Lengths, MlmFill, Mode, fit_text
from calib_ebm.noise.padding import length_batches
from calib_ebm.noise.vocabulary import ClassifierTokenizer, LmText
from calib_ebm.shapes import Encoded

ATTEMPTS, HOPELESS = 32, 8
"""A sample that came to nothing, which only the way over text can do, is drawn again so often; less
when none at all comes to anything."""


class Drawn(NamedTuple):
    """A noise text, and the row of the text it was drawn around (-1: none)."""

    text: Encoded
    source: int


@dataclass
class Counts:
    """What happened to samples on the way."""

    drawn: int = 0
    """Samples that were kept."""
    dropped: int = 0
    """Came out of the way over text without a half, and were drawn again."""
    cut: int = 0
    """Reached the greatest length before their end."""
    symbols: int = 0
    """Symbols drawn, END included."""

    def add(self, other: Counts) -> None:
        """Add up."""
        self.drawn += other.drawn
        self.dropped += other.dropped
        self.cut += other.cut
        self.symbols += other.symbols


@dataclass(frozen=True)
class Sampler:
    """Draws noise texts.

    Args:
        lm: the tuned noise model.
        mode: what it is given and what it writes.
        sampling: temperature and top-k.
        texts: what prefixes are made of; modes without prefixes read only whether they are pairs.
        tokenizer: the classifier's.
        lengths: of prefix and target.
        seed: of all random numbers.
    """

    lm: NoiseLm
    mode: Mode
    sampling: Sampling
    texts: Sequence[Encoded]
    tokenizer: ClassifierTokenizer
    lengths: Lengths
    seed: int
    pairs: bool = field(init=False)
    grammar: Grammar | GapGrammar = field(init=False)

    def __post_init__(self) -> None:
        pairs = self.texts[0].ids_b is not None
        object.__setattr__(self, "pairs", pairs)
        grammar: Grammar | GapGrammar
        if isinstance(self.mode, Infill):
            longest, context = self.lengths.target, self.mode.context
            grammar = GapGrammar(self.lm.vocabulary, longest, context)
        else:
            grammar = Grammar(
                self.lm.vocabulary,
                pairs=pairs,
                labelled=self.mode.labelled,
                max_symbols=self._max_symbols(pairs),
            )
        object.__setattr__(self, "grammar", grammar.to(self.lm.device))

    def _max_symbols(self, pairs: bool) -> int:
        """No noise text is longer than what the classifier reads, which would be cut once more."""
        if self.lm.vocabulary.translator is not None:
            return self.lengths.target
        ids = [0] * self.tokenizer.max_length
        kept_a, kept_b = self.tokenizer.cut(ids, list(ids) if pairs else None)
        longest = len(kept_a) + len(kept_b or ()) + pairs + self.mode.labelled
        return min(self.lengths.target, longest)

    @property
    def budget(self) -> int:
        """Content tokens of a text that a prefix is made of."""
        return self.lengths.budget(self.pairs, self.mode)

    def source_row(self, number: int) -> int:
        """The text that a sample is drawn around: each round over all texts is shuffled anew."""
        turn, place = divmod(number, len(self.texts))
        return int(_order(self.seed, turn, len(self.texts))[place])

    def prefix(self, number: int) -> list[int]:
        """The LM symbols that the sample of a number was drawn around (at the first attempt)."""
        rng = stream(self.seed, DRAWING, number, 0)
        text = self._source(self.source_row(number))
        return self.mode.prefix(text, self.lm.vocabulary.symbols, rng)

    def draw(
        self,
        numbers: Sequence[int],
        batch_size: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[list[Drawn], Counts]:
        """Draw the samples of these numbers, in their order.

        Args:
            numbers: of the samples.
            batch_size: texts written at once.
            progress: is told how many more are done.

        Raises:
            InputError: when a sample comes to nothing again and again.
        """
        drawn: dict[int, Drawn] = {}
        counts = Counts()
        waiting = list(numbers)
        for attempt in range(ATTEMPTS):
            self._draw_once(waiting, attempt, batch_size, drawn, counts, progress)
            waiting = [number for number in waiting if number not in drawn]
            counts.dropped += len(waiting)
            if not waiting:
                counts.drawn = len(drawn)
                return [drawn[number] for number in numbers], counts
            if attempt == HOPELESS and not drawn:
                break
        raise InputError(
            f"{len(waiting)} of {len(numbers)} noise texts came out empty or with an empty half, "
            "each time.",
            "a noise model that writes texts in the pieces of the classifier",
            "Tune it for longer (noise.tune.epochs), or set noise.lm=small.",
        )

    def _draw_once(
        self,
        numbers: list[int],
        attempt: int,
        batch_size: int,
        drawn: dict[int, Drawn],
        counts: Counts,
        progress: Callable[[int], None],
    ) -> None:
        rows = [self.source_row(number) for number in numbers]
        rngs = [stream(self.seed, DRAWING, number, attempt) for number in numbers]
        work = self._fill if isinstance(self.mode, MlmFill) else self._write
        for batch, texts in work(rows, rngs, batch_size, counts):
            kept = 0
            for at, text in zip(batch, texts, strict=True):
                if text.ids_a and text.ids_b != []:
                    drawn[numbers[at]] = Drawn(text, rows[at] if self.mode.uses_source else -1)
                    kept += 1
            progress(kept)

    def _write(
        self, rows: list[int], rngs: list[np.random.Generator], size: int, counts: Counts
    ) -> Iterator[tuple[list[int], list[Encoded]]]:
        symbols = self.lm.vocabulary.symbols
        prefixes = [
            self.mode.prefix(self._source(row), symbols, rng)
            for row, rng in zip(rows, rngs, strict=True)
        ]
        for batch in length_batches([len(prefix) for prefix in prefixes], size):
            uniform_BT = np.stack([rngs[at].random(self.grammar.max_symbols) for at in batch])
            chosen = [prefixes[at] for at in batch]
            grammar = self.grammar.given(chosen)
            written = draw_symbols(self.lm, chosen, uniform_BT, self.sampling, grammar)
            counts.cut += sum(row[-1] != symbols.end for row in written)
            counts.symbols += sum(map(len, written))
            if isinstance(grammar, GapGrammar):
                ways = zip(chosen, grammar.ways, written, strict=True)
                written = [filled(*way, symbols.mask) for way in ways]
            yield batch, [self.parse(row) for row in written]

    def _fill(
        self, rows: list[int], rngs: list[np.random.Generator], size: int, counts: Counts
    ) -> Iterator[tuple[list[int], list[Encoded]]]:
        assert isinstance(self.mode, MlmFill)
        sources = [self._source(row) for row in rows]
        slots = [self.mode.slots(text, rng) for text, rng in zip(sources, rngs, strict=True)]
        lengths = [len(text.ids_a) + len(text.ids_b or ()) for text in sources]
        for batch in length_batches(lengths, size):
            longest = max(lengths[at] for at in batch)
            uniform_BT = np.stack([rngs[at].random(self.budget + 1)[:longest] for at in batch])
            filled = draw_fill(
                self.lm,
                [sources[at] for at in batch],
                [slots[at] for at in batch],
                uniform_BT,
                self.sampling,
            )
            counts.symbols += sum(int(slots[at][0].sum() + slots[at][1].sum()) for at in batch)
            yield (
                batch,
                [
                    self._filled(self.texts[rows[at]], text, slots[at])
                    for at, text in zip(batch, filled, strict=True)
                ],
            )

    def _source(self, row: int) -> LmText:
        return fit_text(self.lm.vocabulary.text(self.texts[row]), self.budget)

    def _filled(
        self, source: Encoded, text: LmText, slots: tuple[np.ndarray, np.ndarray]
    ) -> Encoded:
        """A filled-in text; what was not masked stays, whether the masked LM knows it or not."""
        if self.lm.vocabulary.translator is not None:
            return self._encoded(text.ids_a, text.ids_b, -1)
        halves = []
        sides = (
            (source.ids_a, text.ids_a, slots[0]),
            (source.ids_b or [], text.ids_b or [], slots[1]),
        )
        for old, new, masked in sides:
            halves.append(
                [
                    self.lm.vocabulary.content_of[drawn] if slot else token
                    for token, drawn, slot in zip(old, new, masked, strict=False)
                ]
            )
        return Encoded(halves[0], None if text.ids_b is None else halves[1], -1)

    def parse(self, written: Sequence[int]) -> Encoded:
        """Written symbols as a text of the classifier's tokens."""
        symbols = self.lm.vocabulary.symbols
        row = list(written)
        label = symbols.labels.index(row.pop(0)) if self.mode.labelled else -1
        if row and row[-1] == symbols.end:
            row.pop()
        if not self.pairs:
            return self._encoded(row, None, label)
        middle = row.index(symbols.pair)
        return self._encoded(row[:middle], row[middle + 1 :], label)

    def _encoded(self, lm_a: list[int], lm_b: list[int] | None, label: int) -> Encoded:
        vocabulary = self.lm.vocabulary
        ids_b = None if lm_b is None else vocabulary.to_content(lm_b)
        ids_a, ids_b = self.tokenizer.cut(vocabulary.to_content(lm_a), ids_b)
        return Encoded(ids_a, ids_b, label)

    def log_prob(
        self, texts: Sequence[Encoded], prefixes: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """Exact log P_N of texts, (B,) in float64 on the CPU, the filter and END included.

        Args:
            texts: noise or data; -inf for what is never drawn. In mode `labelled` the probability
                is that of the label and the text together.
            prefixes: what each was drawn around, as the mode makes it; None in modes that need
                none.

        Raises:
            InputError: when noise goes over the text or is filled in, so that no exact probability
                is known.
        """
        vocabulary = self.lm.vocabulary
        mode = self.mode
        if vocabulary.translator is not None or mode.fills_in or mode.keeps_visible:
            raise InputError(
                f"log P_N is not known for noise={mode.name} by way of {vocabulary.token_path}.",
                "an autoregressive noise model that knows the classifier's pieces and writes the "
                "whole text",
                "Set noise.lm=small and noise=masked.",
            )
        assert prefixes is not None or not self.mode.uses_source, "log P_N given what?"
        assert isinstance(self.grammar, Grammar), "said above for noise in gaps"
        given = (
            [list(prefix) for prefix in prefixes] if prefixes is not None else [[] for _ in texts]
        )
        written = [self._written(text) for text in texts]
        longest = self.grammar.max_symbols
        total = torch.full((len(texts),), -torch.inf, dtype=torch.double)
        possible = [row for row, ids in enumerate(written) if len(ids) <= longest]
        for batch in length_batches([len(written[row]) for row in possible], 16):
            rows = [possible[at] for at in batch]
            total[rows] = log_prob_symbols(
                self.lm,
                [given[row] for row in rows],
                [written[row] for row in rows],
                self.sampling,
                self.grammar,
            ).cpu()
        return total

    def log_prob_of_texts(
        self,
        texts: Sequence[Encoded],
        classes: int,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """As `log_prob`, of the texts alone: in mode `labelled` the sum over all labels.

        Args:
            texts: their own labels are not looked at.
            classes: C.
            prefixes: as in `log_prob`.
        """
        if not self.mode.labelled:
            return self.log_prob(texts, prefixes)
        each = [
            self.log_prob([text._replace(label=label) for text in texts], prefixes)
            for label in range(classes)
        ]
        return torch.stack(each).logsumexp(dim=0)

    def _written(self, text: Encoded) -> list[int]:
        """The symbols that a text is written with; END is missing where it would be cut."""
        ids = self.mode.target(self.lm.vocabulary.text(text), self.lm.vocabulary.symbols)
        return ids[:-1] if len(ids) == self.grammar.max_symbols + 1 else ids


@functools.lru_cache(maxsize=4)
def _order(seed: int, turn: int, size: int) -> np.ndarray:
    return stream(seed, ORDERING, turn).permutation(size)
