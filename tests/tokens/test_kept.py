"""Encoded texts that are kept: the same as encoded anew, found again, never silently broken."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from calib_ebm.shapes import Encoded, Example
from calib_ebm.tokens.kept import WORTH, encode_kept
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples, train_tokenizer

TEXTS = ["a cat sat on the mat and it was a good film", "it", "</s> [SEP] 3.14", "", "mat " * 40]


def examples(pairs: bool = False, texts: list[str] = TEXTS) -> list[Example]:
    seconds = [*texts[1:], texts[0]] if pairs else [None] * len(texts)
    rows = zip(texts, seconds, strict=True)
    return [Example(f"train-{i}", a, b, i % 2) for i, (a, b) in enumerate(rows)]


class Keeper:
    """Encodes, keeping all that is worth one character, and counts what was encoded for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.encoded = folder, 0
        self.notes: list[str] = []
        original = TextTokenizer.encode_many

        def counted(tokenizer: TextTokenizer, texts: list[str]) -> list[list[int]]:
            self.encoded += len(texts)
            return original(tokenizer, texts)

        monkeypatch.setattr(TextTokenizer, "encode_many", counted)

    def __call__(
        self, tokenizer: TextTokenizer, given: list[Example], worth: int = 1
    ) -> tuple[list[Encoded], int]:
        self.encoded = 0
        return encode_kept(tokenizer, given, self.folder, note=self.notes.append, worth=worth)

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.suffix != ".lock")


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    return Keeper(tmp_path / "tokens", monkeypatch)


@pytest.fixture
def tokenizer(roberta: Any) -> TextTokenizer:
    return TextTokenizer(roberta, 20)


@pytest.mark.parametrize("pairs", [False, True])
def test_what_is_kept_is_what_encoding_gives(hf: Any, pairs: bool, keep: Keeper) -> None:
    given = examples(pairs)
    texts = len(given) * (1 + pairs)
    for length, encoded in ((12, texts), (12, 0), (20, 0)):  # the file holds the texts uncut
        tokenizer = TextTokenizer(hf, length)
        fresh = encode_examples(tokenizer, given)
        assert fresh[1] > 0  # some are cut
        assert keep(tokenizer, given) == fresh
        assert keep.encoded == encoded
        hf(["a cat"], padding=True, truncation=True, max_length=4)  # leaves its marks
    assert len(keep.files) == 1 and keep.notes == []
    again = [e._replace(label=1 - e.label, id=e.id + "b") for e in given]
    assert [e.label for e in keep(tokenizer, again)[0]] == [e.label for e in again]
    assert keep.encoded == 0


def test_other_texts_and_other_tokenizers_have_files_of_their_own(
    tokenizer: TextTokenizer, keep: Keeper
) -> None:
    joined = ["a cat", "sat"], ["a catsat", ""], ["a", "catsat"]  # the same letters in a row
    for texts in joined:
        assert keep(tokenizer, examples(texts=texts)) == encode_examples(
            tokenizer, examples(texts=texts)
        )
    other = TextTokenizer(train_tokenizer(["the mat was good"] * 4, 290), 20)
    given = examples(texts=joined[0])
    assert keep(other, given) == encode_examples(other, given) != keep(tokenizer, given)
    assert len(keep.files) == 4


def test_few_texts_and_tokenizers_that_do_not_tell_are_encoded_each_time(
    tokenizer: TextTokenizer, keep: Keeper
) -> None:
    assert sum(map(len, TEXTS)) < WORTH
    for _ in range(2):
        keep(tokenizer, examples(), worth=WORTH)
        assert keep.encoded == len(TEXTS)
    slow = TextTokenizer(tokenizer.hf, 20)
    slow.hf = lambda texts, **asked: {"input_ids": [[5] * len(text) for text in texts]}
    for _ in range(2):
        assert keep(slow, examples())[0][1].ids_a == [5, 5]
        assert keep.encoded == len(TEXTS)
    assert keep.files == []


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def other_numbers(path: Path) -> None:
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    save_file({"ids": np.zeros(3, np.int32), "ends": np.asarray([0, 3])}, path, metadata)


DAMAGES: list[Callable[[Path], Any]] = [
    flip_a_byte,
    other_numbers,
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("no numbers at all"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["byte", "numbers", "short", "empty", "words"])
def test_a_broken_file_is_named_and_made_again(
    damage: Callable[[Path], Any], tokenizer: TextTokenizer, keep: Keeper
) -> None:
    fresh = keep(tokenizer, examples())
    (path,) = keep.files
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert keep(tokenizer, examples()) == fresh
    assert keep.encoded == len(TEXTS)
    assert keep.notes == [f"{path} was cut short or changed; its texts were encoded again."]
    assert path.read_bytes() == whole
    keep(tokenizer, examples())
    assert keep.encoded == 0 and len(keep.notes) == 1


def test_a_full_disk_leaves_no_half_of_a_file(
    tokenizer: TextTokenizer, keep: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("calib_ebm.durable.os.fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            keep(tokenizer, examples())
        assert str(caught.value.filename).endswith(".safetensors")
    assert keep.files == []
    assert keep(tokenizer, examples()) == encode_examples(tokenizer, examples())


def _encode_at_once(folder: Path, barrier: Barrier, counted: Any, results: Any) -> None:
    tokenizer = TextTokenizer(train_tokenizer(TEXTS * 3, 290), 20)
    original = tokenizer.encode_many

    def encode_many(texts: list[str]) -> list[list[int]]:
        with counted.get_lock():
            counted.value += 1
        return original(texts)

    tokenizer.encode_many = encode_many  # type: ignore[method-assign, assignment]
    barrier.wait(60)
    results.put(encode_kept(tokenizer, examples(), folder, worth=1))


def test_of_processes_that_ask_at_once_one_encodes_and_all_get_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, counted, results = context.Barrier(3), context.Value("i", 0), context.Queue()
    arguments = (tmp_path, barrier, counted, results)
    processes = [context.Process(target=_encode_at_once, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    got = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert got[0] == got[1] == got[2] and len(got[0][0]) == len(TEXTS)
    assert counted.value == 1
