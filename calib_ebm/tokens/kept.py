"""Encoded texts, kept on disk where encoding them takes longer than reading them again.

    cache/tokens/<digest>.safetensors    ids of all texts in a row, and where each begins and ends

The digest is of the texts and of all of the tokenizer; how long a text may be is applied after
reading, so that another `task.max_length` finds the same file. What is read is numbers, checked by
a checksum; a file that is broken is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tokenizers
from safetensors import safe_open
from safetensors.numpy import save

from calib_ebm.durable import write_whole
from calib_ebm.lock import only_one
from calib_ebm.shapes import Encoded, Example
from calib_ebm.tokens.tokenizer import TextTokenizer, cut_texts

FORMAT = "1"
WORTH = 1_000_000
"""Characters: they take a tokenizer in Rust about a second, and reading their ids a twentieth."""

Say = Callable[[str], None]
Ids = list[list[int]]


def encode_kept(
    tokenizer: TextTokenizer,
    examples: Sequence[Example],
    folder: Path,
    say: Say = lambda line: None,
    note: Say = lambda sentence: None,
    worth: int = WORTH,
) -> tuple[list[Encoded], int]:
    """As `encode_examples`; many texts are encoded once, and found in `folder` from then on.

    Of several processes that ask for the same ones, the first encodes and the others wait.

    Args:
        tokenizer: a tokenizer.
        examples: texts.
        folder: where ids are kept.
        say: takes lines for the person.
        note: takes a sentence where what was kept is broken.
        worth: fewer characters than these are encoded each time.

    Raises:
        OSError: when the disk is full.
    """
    texts = [e.text for e in examples]
    texts += [e.text_pair for e in examples if e.text_pair is not None]
    settings = tokenizer.settings
    if settings is None or sum(map(len, texts)) < worth:
        return cut_texts(tokenizer, examples, tokenizer.encode_many(texts))
    path = folder / f"{_digest(settings, texts)}.safetensors"
    ids = _read(path)
    if ids is None:
        with only_one(path, say):
            ids = _read(path)  # made by now by the process that was waited for
            if ids is None:
                if path.exists():
                    note(f"{path} was cut short or changed; its texts were encoded again.")
                ids = tokenizer.encode_many(texts)
                _write(path, ids)
    return cut_texts(tokenizer, examples, ids)


def _digest(settings: str, texts: Sequence[str]) -> str:
    """Of all that determines the ids."""
    state = hashlib.sha256(f"{FORMAT} {tokenizers.__version__} {settings}\n".encode())
    # With their lengths, so that no two lists of texts are the same bytes.
    state.update(json.dumps([len(text) for text in texts]).encode())
    state.update("".join(texts).encode("utf-8", errors="surrogatepass"))
    return state.hexdigest()[:32]


def _write(path: Path, ids: Ids) -> None:
    """Put the file in place whole."""
    count = sum(map(len, ids))
    flat = np.fromiter((token for row in ids for token in row), np.int32, count)
    ends = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    content = save({"ids": flat, "ends": ends}, {"sha256": _checksum(flat, ends)})
    write_whole(path, content)  # whoever writes it holds the lock


def _read(path: Path) -> Ids | None:
    """The ids in a file; None where there is none, or it is broken."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as file:
            wanted = (file.metadata() or {}).get("sha256")
            ids, ends = file.get_tensor("ids"), file.get_tensor("ends")
    except Exception:  # of every kind; all mean that it is broken
        return None
    if _checksum(ids, ends) != wanted:
        return None
    row = ids.tolist()
    return [row[start:end] for start, end in pairwise(ends.tolist())]


def _checksum(ids: np.ndarray, ends: np.ndarray) -> str:
    return hashlib.sha256(ids.tobytes() + ends.tobytes()).hexdigest()
