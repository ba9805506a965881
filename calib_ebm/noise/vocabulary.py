"""What the noise model reads and writes, against what the classifier reads.

Noise is kept as token ids of the classifier. A noise model has ids of its own, and symbols that no
text
holds: for a masked run, for the start and the end of what it writes, between the texts of a pair,
    for each
class. Three ways lead from one to the other (`token_path`):

    own            the noise model was built for the classifier's pieces: only those that the
    training texts
                   hold, which keeps a small model small
    exact_map      the noise model knows the same pieces under other ids (GPT-2 and RoBERTa)
    decode_encode  the vocabularies differ: over the text and back
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from calib_ebm.errors import InputError
from calib_ebm.shapes import Encoded

OWN, EXACT_MAP, DECODE_ENCODE = "own", "exact_map", "decode_encode"


class PieceTokenizer(Protocol):
    """What this room needs of a noise model's tokenizer."""

    vocabulary: dict[str, int]
    special_ids: frozenset[int]
    hf: Any

    def encode_pieces(self, text: str) -> list[int]:
        """Content ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of content ids."""


class ClassifierTokenizer(PieceTokenizer, Protocol):
    """And what it needs of the classifier's."""

    digest: str
    max_length: int

    def cut(self, ids_a: list[int], ids_b: list[int] | None) -> tuple[list[int], list[int] | None]:
        """Cut to the length budget."""


class LmText(NamedTuple):
    """A text, or pair, in ids of the noise model."""

    ids_a: list[int]
    ids_b: list[int] | None
    label: int


@dataclass(frozen=True)
class Symbols:
    """Ids of the symbols that no text holds."""

    mask: int
    start: int
    end: int
    pair: int
    unknown: int
    pad: int
    labels: tuple[int, ...]

    @classmethod
    def after(cls, content_size: int, classes: int) -> Symbols:
        """Symbols that follow `content_size` content ids."""
        first = content_size
        labels = tuple(range(first + 6, first + 6 + classes))
        return cls(first, first + 1, first + 2, first + 3, first + 4, first + 5, labels)

    @property
    def count(self) -> int:
        """How many there are."""
        return 6 + len(self.labels)


class Translator(NamedTuple):
    """Both tokenizers, for the way over the text."""

    classifier: ClassifierTokenizer
    lm: PieceTokenizer

    def to_lm(self, ids: Sequence[int]) -> list[int]:
        """Classifier ids to ids of the noise model."""
        return self.lm.encode_pieces(self.classifier.decode(ids))

    def to_content(self, lm_ids: Sequence[int]) -> list[int]:
        """Ids of the noise model to classifier ids."""
        return self.classifier.encode_pieces(self.lm.decode(lm_ids))


@dataclass(frozen=True)
class LmVocabulary:
    """The two ways between classifier ids and ids of the noise model.

    Args:
        token_path: `own`, `exact_map` or `decode_encode`.
        symbols: the noise model's symbols; they follow its content ids.
        content_of: the classifier id of each content id of the noise model, -1 where it has none
            (such pieces are never drawn); with `decode_encode` -1 means banned, anything else
            drawable.
        translator: with `decode_encode`, the two tokenizers.
    """

    token_path: str
    symbols: Symbols
    content_of: tuple[int, ...]
    translator: Translator | None = None

    @property
    def size(self) -> int:
        """V: content ids and symbols."""
        return len(self.content_of) + self.symbols.count

    @cached_property
    def lm_of(self) -> dict[int, int]:
        """Ids of the noise model by classifier id."""
        return {content: lm for lm, content in enumerate(self.content_of) if content >= 0}

    @cached_property
    def drawable_V(self) -> np.ndarray:
        """True for the content ids that may stand in a noise text."""
        symbols = np.zeros(self.symbols.count, dtype=bool)
        return np.concatenate([np.asarray(self.content_of) >= 0, symbols])

    def to_lm(self, ids: Sequence[int]) -> list[int]:
        """Classifier ids to ids of the noise model; UNKNOWN for pieces that it does not know."""
        if self.translator is not None:
            return self.translator.to_lm(ids)
        known, unknown = self.lm_of, self.symbols.unknown
        return [known.get(token, unknown) for token in ids]

    def to_content(self, lm_ids: Sequence[int]) -> list[int]:
        """Drawn content ids of the noise model to classifier ids."""
        if self.translator is not None:
            return self.translator.to_content(lm_ids)
        return [self.content_of[token] for token in lm_ids]

    def text(self, encoded: Encoded) -> LmText:
        """A text in ids of the noise model."""
        ids_b = None if encoded.ids_b is None else self.to_lm(encoded.ids_b)
        return LmText(self.to_lm(encoded.ids_a), ids_b, encoded.label)

    def to_plain(self) -> dict[str, Any]:
        """As plain values, without the translator."""
        return {
            "token_path": self.token_path,
            "symbols": asdict(self.symbols),
            "content_of": list(self.content_of),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], translator: Translator | None) -> LmVocabulary:
        """From plain values; `translator` is needed for `decode_encode`, and only there."""
        assert (plain["token_path"] == DECODE_ENCODE) == (translator is not None)
        symbols = dict(plain["symbols"])
        symbols["labels"] = tuple(symbols["labels"])
        return cls(plain["token_path"], Symbols(**symbols), tuple(plain["content_of"]), translator)


def content_ids(texts: Iterable[Encoded], special_ids: frozenset[int]) -> list[int]:
    """The content ids that occur in texts, in order; ids that frame texts are no content."""
    found: set[int] = set()
    for text in texts:
        found.update(text.ids_a)
        found.update(text.ids_b or ())
    return sorted(found - special_ids)


def own_vocabulary(
    texts: Iterable[Encoded], special_ids: frozenset[int], classes: int
) -> LmVocabulary:
    """A vocabulary of the classifier's pieces that the training texts hold, and no others."""
    content = tuple(content_ids(texts, special_ids))
    if not content:
        raise InputError(
            "The training texts hold no tokens.",
            "texts with words",
            "Check the text column of the task.",
        )
    return LmVocabulary(OWN, Symbols.after(len(content), classes), content)


def matched_vocabulary(
    texts: Sequence[Encoded],
    classifier: ClassifierTokenizer,
    lm: PieceTokenizer,
    lm_size: int,
    classes: int,
    sample: int = 200,
) -> LmVocabulary:
    """The vocabulary of a noise model that has a tokenizer of its own.

    An exact map is taken when every piece of the training texts has one of the same spelling, and
    the noise model's tokenizer cuts a sample of them into those very pieces; else the way goes over
    the text.

    Args:
        texts: training texts.
        classifier: the classifier's tokenizer.
        lm: the noise model's tokenizer.
        lm_size: rows of the noise model's embedding.
        classes: C.
        sample: texts whose segmentation is compared.
    """
    lm_size = max(lm_size, 1 + max(lm.vocabulary.values()))
    symbols = Symbols.after(lm_size, classes)
    structural = structural_ids(classifier)
    content_of = [-1] * lm_size
    for piece, content in classifier.vocabulary.items():
        image = lm.vocabulary.get(piece)
        if image is not None and content not in structural and image not in structural_ids(lm):
            content_of[image] = content
    mapped = LmVocabulary(EXACT_MAP, symbols, tuple(content_of))
    used = content_ids(texts, structural)
    if all(token in mapped.lm_of for token in used) and _same_cuts(
        texts[:sample], mapped, classifier, lm
    ):
        return mapped
    drawable = [-1] * lm_size
    for image in set(lm.vocabulary.values()) - lm.special_ids:
        drawable[image] = 0
    return LmVocabulary(DECODE_ENCODE, symbols, tuple(drawable), Translator(classifier, lm))


def _same_cuts(
    texts: Sequence[Encoded], mapped: LmVocabulary, classifier: PieceTokenizer, lm: PieceTokenizer
) -> bool:
    for text in texts:
        for ids in (text.ids_a, text.ids_b or []):
            words = classifier.decode(ids)
            # A text that was cut to length may not even come back from its own tokenizer. Where
            # none does, the way over the text is no way at all, and the map by spelling stands.
            if classifier.encode_pieces(words) == ids and lm.encode_pieces(words) != mapped.to_lm(
                ids
            ):
                return False
    return True


def structural_ids(tokenizer: PieceTokenizer) -> frozenset[int]:
    """Special ids that frame texts; the id of an unknown piece stands for content all the same."""
    return tokenizer.special_ids - {getattr(tokenizer.hf, "unk_token_id", None)}
