"""The noise of a run as the training and the report see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from calib_ebm.learn.prepare import Material
from calib_ebm.noise.bank import NoiseBank
from calib_ebm.noise.order import NoiseOrder
from calib_ebm.noise.sampler import Sampler
from calib_ebm.report.files import NoiseSample, write_noise_samples
from calib_ebm.shapes import Encoded
from calib_ebm.text.embedded import Language
from calib_ebm.tokens.order import Place
from calib_ebm.tokens.tokenizer import TextTokenizer

SHOWN = 20
"""Noise texts that the report shows beside their sources."""


@dataclass(frozen=True)
class NoiseSupply:
    """The noise of a run.

    Attributes:
        train: labels of the training texts: noise without a label of its own takes its source's.
        order: which rows of the bank a text gets.
        per_text: K.
        metrics: what is known of the noise model, for metrics.json.
    """

    bank: NoiseBank
    sources: np.ndarray
    train: Sequence[Encoded]
    order: NoiseOrder
    per_text: int
    held_out_bank: NoiseBank
    sampler: Sampler
    metrics: dict[str, float]

    def noise_for(self, place: Place) -> list[Encoded]:
        """The K noise texts of a text at a place of the training, or none."""
        _, epoch, position = place
        return [self._labelled(row) for row in self.order.at(epoch, position)]

    def _labelled(self, row: int) -> Encoded:
        text, source = self.bank[row], int(self.sources[row])
        if text.label >= 0 or source < 0:
            return text
        return text._replace(label=self.train[source].label)

    @property
    def held_out(self) -> list[Encoded]:
        """Noise around held-out texts."""
        return [self.held_out_bank[row] for row in range(len(self.held_out_bank))]

    def true_energies(self, material: Material) -> tuple[np.ndarray, np.ndarray] | None:
        """The exact -log(P_D / P_N) of the test half and of held-out noise, in nats.

        Known where the language is known and P_N has no prefix to sum over. Infinite where only
        one of the two can write the text: the sampling filter gives many texts probability 0, and
        noise of another segmentation than the tokenizer's is no text of the language.
        """
        language = material.task.truth
        mode = self.sampler.mode
        if language is None or mode.uses_source:
            return None
        classes = len(material.task.labels)
        data, noise = (
            np.asarray(self.sampler.log_prob_of_texts(texts, classes))
            - true_log_prob(language, material.tokenizer, texts)
            for texts in (material.test, self.held_out)
        )
        return data, noise

    def write_samples(self, folder: Path, material: Material, energy_N: Tensor | None) -> None:
        """Write some held-out noise beside the texts that it was drawn around."""
        sources = self.held_out_bank.sources
        samples = []
        for row in range(min(SHOWN, len(self.held_out_bank))):
            source = int(sources[row])
            samples.append(
                NoiseSample(
                    source=words_of(material, material.test[source]) if source >= 0 else "",
                    masked=_prefix(self.sampler, material, row),
                    noise=words_of(material, self.held_out_bank[row]),
                    energy=None if energy_N is None else float(energy_N[row]),
                )
            )
        write_noise_samples(folder, samples)


def true_log_prob(
    language: Language, tokenizer: TextTokenizer, texts: Sequence[Encoded]
) -> np.ndarray:
    """The exact log P_D of encoded texts in nats, (N,).

    Of one of another segmentation than the tokenizer's it is -inf: no text of the language is
    encoded so.
    """
    written = [tokenizer.decode(text.ids_a).strip() for text in texts]
    return np.asarray(
        [
            language.log_prob(words)
            if tokenizer.encode_pieces(words) == list(text.ids_a)
            else -np.inf
            for words, text in zip(written, texts, strict=True)
        ]
    )


def words_of(material: Material, text: Encoded) -> str:
    """An encoded text, or pair, as a person reads it."""
    decode = material.tokenizer.decode
    halves = [decode(ids).strip() for ids in (text.ids_a, text.ids_b) if ids is not None]
    return " | ".join(halves)


def _prefix(sampler: Sampler, material: Material, number: int) -> str | None:
    """What a sample was drawn around, gaps shown as [...]; None for noise without a prefix."""
    mode = sampler.mode
    if not mode.uses_source or mode.fills_in:
        return None
    symbols, vocabulary = sampler.lm.vocabulary.symbols, sampler.lm.vocabulary
    names = {symbols.mask: " [...] ", symbols.pair: " | ", symbols.unknown: " [?] "}
    shown, run = "", []
    for symbol in [*sampler.prefix(number), symbols.mask]:
        if symbol not in names:
            run.append(symbol)
            continue
        shown += material.tokenizer.decode(vocabulary.to_content(run)) + names[symbol]
        run = []
    return " ".join(shown.removesuffix(names[symbols.mask]).split())
