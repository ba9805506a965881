"""Where an untuned noise model comes from: its name, the Hub or a folder, its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib_ebm.errors import InputError

SMALL = "small"
"""The value of `noise.lm` that means: build a small noise model from `noise.small`."""


@dataclass(frozen=True)
class MlmFrame:
    """What a masked LM wants around the texts, and in place of a masked token."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]
    type_b: int
    mask: int


class LmTokenizer:
    """A noise model's tokenizer; GPT-2's knows no special tokens around or between texts."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        self.vocabulary: dict[str, int] = dict(hf.get_vocab())
        self.special_ids: frozenset[int] = frozenset(hf.all_special_ids)
        # GPT-2 has one special token for everything, the unknown too, which its bytes never need.
        ends = {hf.bos_token_id, hf.eos_token_id}
        self._never_content = self.special_ids - ({hf.unk_token_id} - ends)

    def encode_pieces(self, text: str) -> list[int]:
        """Content ids of a text; `<|endoftext|>` spelt out in it is a word like any other."""
        ids = self.hf(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [token for token in ids["input_ids"] if token not in self._never_content]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of content ids."""
        return self.hf.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def cannot_load(name: str, masked: bool, error: Exception) -> InputError:
    """The error for a noise model that is neither in the folder nor to be had from the Hub."""
    folder = Path(name)
    if folder.is_dir():
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        to_do = f"Check the folder (it holds: {there}), or set noise.lm={SMALL}."
    else:
        to_do = (
            f"Set noise.lm={SMALL} (trained from scratch on the task's texts, no download), or "
            "give a local folder (noise.lm=/path/to/lm), or run once where the Hub can be reached."
        )
    kind = "masked" if masked else "autoregressive"
    return InputError(
        f"No {kind} noise model could be loaded from noise.lm={name!r} ({first_line(error)}).",
        f"a Hub id (cached or reachable), a local folder of an {kind} LM with its tokenizer, or "
        f"{SMALL!r}",
        to_do,
    )


def first_line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def lm_source(name: str) -> dict[str, str]:
    """What identifies an untuned noise model: its name, and the digest of a folder's files."""
    folder = Path(name)
    if name == SMALL or not folder.is_dir():
        return {"name": name}
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        with file.open("rb") as opened:
            digest.update(
                f"{file.name}:{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode()
            )
    return {"name": folder.name, "sha256": digest.hexdigest()}
