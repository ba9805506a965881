"""Text to content token ids and back, for any tokenizer that transformers can load.

Content ids carry no special tokens: masking, noise and truncation work on them, and
`TextTokenizer.build` puts the special tokens back for the model. So a noise text made of ids never
makes a round trip through text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers.implementations import ByteLevelBPETokenizer
from transformers import AutoTokenizer, RobertaTokenizer

from calib_ebm.errors import InputError
from calib_ebm.hub import must_be_local
from calib_ebm.shapes import Encoded, Example

ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FEWEST_PIECES = 8
"""Fewer pieces than these, special tokens aside, are no vocabulary."""


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts around and between the texts, and token types.

    For RoBERTa a pair reads `<s> A </s></s> B </s>`: `before` is `<s>`, `between` is `</s></s>`,
    `behind` is `</s>`.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]
    type_a: int
    type_b: int

    @property
    def size(self) -> int:
        """Special tokens around one text, or around both of a pair."""
        return len(self.before) + len(self.between) + len(self.behind)


def _read_frame(tokenizer: Any, pair: bool) -> Frame:
    """Learn the frame from what the tokenizer does to a sample: no model is a case of its own."""
    sample = tokenizer("a", "a" if pair else None, return_special_tokens_mask=True)
    ids, special = sample["input_ids"], sample["special_tokens_mask"]
    types = sample.get("token_type_ids") or [0] * len(ids)
    content = [place for place, is_special in enumerate(special) if not is_special]
    first, last = content[0], content[-1]
    # Both texts are the same, so their pieces are the two halves, also where nothing parts them.
    end_a = content[len(content) // 2 - 1] + 1 if pair else last + 1
    start_b = content[len(content) // 2] if pair else end_a
    return Frame(
        tuple(ids[:first]),
        tuple(ids[end_a:start_b]),
        tuple(ids[last + 1 :]),
        types[first],
        types[last],
    )


class TextTokenizer:
    """A transformers tokenizer seen as a map between texts and content ids.

    Args:
        hf: the transformers tokenizer.
        max_length: tokens a text may have with its special tokens; longer ones are cut.

    Attributes:
        special_ids: ids of special tokens. Of these only the unknown token stands for content.
        digest: sha256 of the vocabulary, the frames and a probe of the segmentation: equal digests,
            equal ids.
    """

    def __init__(self, hf: Any, max_length: int) -> None:
        self.hf = hf
        self.max_length = max_length
        self.vocabulary: dict[str, int] = dict(hf.get_vocab())
        self.special_ids: frozenset[int] = frozenset(hf.all_special_ids)
        self._never_content = self.special_ids - {hf.unk_token_id}
        self.mask_id: int | None = hf.mask_token_id
        self.pad_id: int = hf.pad_token_id if hf.pad_token_id is not None else 0
        self.single = _read_frame(hf, pair=False)
        self.pair = _read_frame(hf, pair=True)
        self.has_types = "token_type_ids" in hf("a")
        self.digest = self._digest()

    def _digest(self) -> str:
        probe = "Don't over-think 3.14 naive cafes: unhappily, they're re-tokenised!"
        facts = [
            sorted(self.vocabulary.items()),
            repr((self.single, self.pair)),
            self.encode_pieces(probe),
        ]
        return hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()

    @property
    def settings(self) -> str | None:
        """All that ids depend on, beside the text; None where a tokenizer does not tell."""
        backend = getattr(self.hf, "backend_tokenizer", None)
        if backend is None:
            return None
        facts = json.loads(backend.to_str())
        # What the last call asked for; nothing is cut or padded here.
        facts |= {"truncation": None, "padding": None}
        return json.dumps([sorted(self._never_content), facts])

    def encode_pieces(self, text: str) -> list[int]:
        """Content ids of one text, uncut."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Content ids of many texts, uncut; much faster than one by one.

        A special token that a text spells out, such as `</s>`, is split like any other word, and
        left out where the vocabulary knows it only whole: nobody's text may end another.
        """
        if not texts:
            return []
        many = self.hf(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            # Made for each text and thrown away, these take a third of the time.
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        never = self._never_content
        return [
            ids if never.isdisjoint(ids) else [token for token in ids if token not in never]
            for ids in many
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of content ids."""
        return self.hf.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def cut(self, ids_a: list[int], ids_b: list[int] | None) -> tuple[list[int], list[int] | None]:
        """Cut to the length budget, from the end of the longer text until both are equally long.

        The same as `longest_first` of a tokenizer in Rust, an odd token going to the text that was
        longer, or to the second.
        """
        budget = self.max_length - (self.single.size if ids_b is None else self.pair.size)
        if ids_b is None:
            return ids_a[:budget], None
        if len(ids_a) + len(ids_b) <= budget:
            return ids_a, ids_b
        short = min(len(ids_a), len(ids_b), budget // 2)
        long = budget - short
        a, b = (long, short) if len(ids_a) > len(ids_b) else (short, long)
        return ids_a[:a], ids_b[:b]

    def build(self, text: Encoded) -> tuple[list[int], list[int]]:
        """Model input of one encoded text: ids with special tokens, and token types."""
        if text.ids_b is None:
            ids = [*self.single.before, *text.ids_a, *self.single.behind]
            return ids, [self.single.type_a] * len(ids)
        frame = self.pair
        head = [*frame.before, *text.ids_a, *frame.between]
        tail = [*text.ids_b, *frame.behind]
        return head + tail, [frame.type_a] * len(head) + [frame.type_b] * len(tail)


def encode_examples(
    tokenizer: TextTokenizer, examples: Sequence[Example]
) -> tuple[list[Encoded], int]:
    """Encode texts, cut what is too long.

    Returns:
        the encoded texts in order, and how many had to be cut.
    """
    texts = [e.text for e in examples]
    texts += [e.text_pair for e in examples if e.text_pair is not None]
    return cut_texts(tokenizer, examples, tokenizer.encode_many(texts))


def cut_texts(
    tokenizer: TextTokenizer, examples: Sequence[Example], ids: Sequence[list[int]]
) -> tuple[list[Encoded], int]:
    """Cut what is too long.

    Args:
        tokenizer: says how long a text may be.
        examples: the texts.
        ids: uncut, first of all texts, then of the second texts of those that are pairs.

    Returns:
        the encoded texts in order, and how many had to be cut.
    """
    ids_b = iter(ids[len(examples) :])
    encoded, cut = [], 0
    for example, a in zip(examples, ids[: len(examples)], strict=True):
        b = None if example.text_pair is None else next(ids_b)
        kept_a, kept_b = tokenizer.cut(a, b)
        cut += (len(kept_a), len(kept_b or ())) != (len(a), len(b or ()))
        encoded.append(Encoded(kept_a, kept_b, example.label))
    return encoded, cut


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A RoBERTa tokenizer whose byte-level BPE is trained on the spot, for encoders from scratch.

    Args:
        texts: what to train on.
        vocab_size: pieces wanted, the 256 bytes and five special tokens included.
    """
    # The space in front makes a word one piece wherever it stands, at the start of a text too.
    bpe = ByteLevelBPETokenizer(add_prefix_space=True)
    bpe.train_from_iterator(
        iter(texts),
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(ROBERTA_SPECIALS),
        show_progress=False,
    )
    model = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, add_prefix_space=True)


def load_tokenizer(name_or_path: str) -> Any:
    """The tokenizer of a Hub id or local folder.

    Raises:
        InputError: when it is neither a folder with a tokenizer nor to be had from the Hub.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_path,
            local_files_only=must_be_local(name_or_path),
            trust_remote_code=False,  # what a folder holds is not executed, and nothing is asked
        )
    # Half-written files raise errors of every kind; all mean the same to the person.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        raise _not_loaded(name_or_path, f"{type(error).__name__}: {cause}") from error
    # From a folder without a vocabulary transformers makes a tokenizer of special tokens only.
    pieces = len(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    if pieces < FEWEST_PIECES:
        raise _not_loaded(name_or_path, "there is no vocabulary")
    return tokenizer


def _not_loaded(name_or_path: str, cause: str) -> InputError:
    return InputError(
        f"No tokenizer could be loaded from encoder.name_or_path={name_or_path!r} ({cause}).",
        "a folder with a tokenizer and config.json as transformers saves them, a Hub id that is "
        "cached or reachable, or 'small'",
        _advice(name_or_path),
    )


def _advice(name_or_path: str) -> str:
    if Path(name_or_path).is_dir():
        there = ", ".join(sorted(p.name for p in Path(name_or_path).iterdir())[:12])
        return f"Check the folder; it holds: {there or 'nothing'}."
    return (
        "Run once where the Hub can be reached, or give a local folder "
        "(encoder.name_or_path=/path/to/encoder), or train a small encoder "
        "(encoder.name_or_path=small)."
    )
