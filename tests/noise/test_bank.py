from __future__ import annotations

import errno
import json
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from calib_ebm import durable
from calib_ebm.errors import InputError
from calib_ebm.noise import bank as bank_module
from calib_ebm.noise.bank import NoiseBank, bank_folder, digest_of, write_bank
from calib_ebm.noise.sampler import Counts, Drawn
from calib_ebm.shapes import Encoded

PLAN = {"task": "tea", "tokenizer": "words", "seed": 1}


def text_of(number: int, pairs: bool) -> Encoded:
    ids_b = [number, number + 1] if pairs else None
    return Encoded(list(range(number % 5 + 1)), ids_b, number % 3 - 1)


def drawer(pairs: bool = False, log: list[range] | None = None) -> Any:
    def draw(numbers: range) -> tuple[list[Drawn], Counts]:
        if log is not None:
            log.append(numbers)
        samples = [Drawn(text_of(n, pairs), 7 * n) for n in numbers]
        return samples, Counts(len(numbers), dropped=1, cut=2, symbols=3)

    return draw


def make(folder: Path, draw: Any = None, plan: dict[str, Any] = PLAN, count: int = 10) -> None:
    write_bank(folder, plan, count, draw or drawer(), {"mode": "masked"})


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_module, "shard_size_of", lambda count: 4)


@pytest.mark.parametrize("pairs", [False, True])
def test_what_is_written_is_read(tmp_path: Path, pairs: bool) -> None:
    make(tmp_path / "bank", drawer(pairs))
    bank = NoiseBank.open(tmp_path / "bank", expect={"task": "tea", "tokenizer": "words"})
    assert len(bank) == 10
    assert list(bank) == [text_of(n, pairs) for n in range(10)]
    assert bank.sources.tolist() == [7 * n for n in range(10)]
    assert bank.lengths.tolist() == [n % 5 + 1 + 2 * pairs for n in range(10)]
    assert bank.manifest["mode"] == "masked"
    assert (bank.manifest["drops"], bank.manifest["cut"], bank.manifest["symbols"]) == (3, 6, 9)
    assert [shard["file"] for shard in bank.manifest["shards"]] == [
        f"shard-{i:05d}.arrow" for i in range(3)
    ]
    names = sorted(file.name for file in (tmp_path / "bank").iterdir())
    assert names == ["manifest.json", "plan.json", *(f"shard-{i:05d}.arrow" for i in range(3))]


def test_an_interrupted_bank_goes_on_at_the_missing_shard(tmp_path: Path) -> None:
    log: list[range] = []
    calls = 0

    def stops(numbers: range) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return drawer(log=log)(numbers)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "bank", stops)
    assert not (tmp_path / "bank").exists()
    with pytest.raises(InputError, match="damaged"):
        NoiseBank.open(tmp_path / "bank.part")
    make(tmp_path / "bank", drawer(log=log))
    assert log == [range(0, 4), range(4, 8), range(8, 10)]
    make(tmp_path / "undisturbed")
    again, undisturbed = (NoiseBank.open(tmp_path / n) for n in ("bank", "undisturbed"))
    assert list(again) == list(undisturbed)
    assert again.manifest == undisturbed.manifest


def test_what_another_plan_or_a_broken_write_left_is_drawn_again(tmp_path: Path) -> None:
    part = tmp_path / "bank.part"
    stopping = iter([True, True, False])

    def stops(numbers: range) -> Any:
        if not next(stopping):
            raise KeyboardInterrupt
        return drawer()(numbers)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "bank", stops)
    shard = part / "shard-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-8])
    log: list[range] = []
    make(tmp_path / "bank", drawer(log=log))
    assert log == [range(4, 8), range(8, 10)]

    (tmp_path / "bank").rename(part)
    log.clear()
    make(tmp_path / "bank", drawer(log=log), plan={**PLAN, "seed": 2})
    assert len(log) == 3


class Sharing(NamedTuple):
    """A second process that draws the same bank."""

    process: BaseProcess
    holds: Event
    go_on: Event
    numbers: Queue[int]


def draw_beside(folder: Path) -> Sharing:
    """Start it; it holds its first shard until it is told to go on."""
    context = multiprocessing.get_context("fork")
    holds, go_on, log = context.Event(), context.Event(), context.Queue()

    def draw(numbers: range) -> Any:
        holds.set()
        assert go_on.wait(20)
        log.put(numbers.start)
        return drawer()(numbers)

    process = context.Process(target=make, args=(folder, draw))
    process.start()
    assert holds.wait(20)
    return Sharing(process, holds, go_on, log)


@pytest.mark.parametrize("killed", [False, True])
def test_processes_share_the_shards_and_the_bank_is_the_same(tmp_path: Path, killed: bool) -> None:
    other = draw_beside(tmp_path / "bank")
    log: list[range] = []
    said: list[str] = []

    def draw(numbers: range) -> Any:
        log.append(numbers)
        return drawer()(numbers)

    def say(line: str) -> None:
        said.append(line)  # all that was free is drawn
        if killed:
            other.process.kill()
        else:
            other.go_on.set()

    drawn = write_bank(tmp_path / "bank", PLAN, 10, draw, {"mode": "masked"}, say)
    other.process.join(20)
    assert len(said) == 1 and "waiting" in said[0]
    # The other holds the first shard. Who is killed loses that one alone, and it is drawn here.
    assert [numbers.start for numbers in log] == ([4, 8, 0] if killed else [4, 8])
    assert drawn == sum(map(len, log))
    assert other.process.exitcode == (-signal.SIGKILL if killed else 0)
    if not killed:
        assert other.numbers.get(timeout=20) == 0
        assert other.numbers.empty()
    make(tmp_path / "alone")
    shared, alone = (NoiseBank.open(tmp_path / name) for name in ("bank", "alone"))
    assert shared.manifest == alone.manifest
    assert sorted(f.name for f in shared.folder.iterdir()) == sorted(
        f.name for f in alone.folder.iterdir()
    )


def test_a_bank_that_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    make(tmp_path / "bank")
    log: list[range] = []
    assert write_bank(tmp_path / "bank", PLAN, 10, drawer(log=log), {"mode": "masked"}) == 0
    assert log == []


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk is full from the write of file number `after` on; what was begun stays half."""
    files = 0
    original = durable.os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal files
        files += 1
        if files > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)


@pytest.mark.parametrize("after", range(9))
def test_on_a_full_disk_no_half_bank_is_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    full_disk(monkeypatch, after)
    with pytest.raises(InputError, match="disk is full") as caught:
        make(tmp_path / "bank")
    assert "cache_dir" in caught.value.to_do
    assert not (tmp_path / "bank").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    make(tmp_path / "bank")
    assert list(NoiseBank.open(tmp_path / "bank")) == [text_of(n, False) for n in range(10)]


def test_other_errors_of_the_disk_are_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make(tmp_path / "file" / "bank")


def flip_a_byte(folder: Path) -> None:
    shard = folder / "shard-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def cut_short(folder: Path) -> None:
    shard = folder / "shard-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:-1])


def other_count(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"count": 10', '"count": 30'))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped byte": flip_a_byte,
    "cut short": cut_short,
    "a missing shard": lambda folder: (folder / "shard-00000.arrow").unlink(),
    "another count": other_count,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"format": 1, '),
    "another format": lambda folder: (folder / "manifest.json").write_text(
        json.dumps({"format": 99, "shards": []})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bank_is_refused(tmp_path: Path, damage: str) -> None:
    make(tmp_path / "bank")
    DAMAGES[damage](tmp_path / "bank")
    with pytest.raises(InputError, match="is damaged") as caught:
        NoiseBank.open(tmp_path / "bank")
    assert str(tmp_path / "bank") in caught.value.given
    assert "Remove the folder" in caught.value.to_do


@pytest.mark.parametrize("of", ["task", "tokenizer"])
def test_the_bank_of_something_else_is_refused_naming_both(tmp_path: Path, of: str) -> None:
    make(tmp_path / "bank")
    expect = {"task": "tea", "tokenizer": "words", of: "coffee"}
    with pytest.raises(InputError) as caught:
        NoiseBank.open(tmp_path / "bank", expect)
    assert PLAN[of] in caught.value.given  # type: ignore[operator]  # a string
    assert "coffee" in caught.value.allowed


def test_a_bank_is_found_by_all_that_determines_it(tmp_path: Path) -> None:
    found = bank_folder(tmp_path, PLAN)
    assert found == bank_folder(tmp_path, dict(reversed(PLAN.items())))
    assert found != bank_folder(tmp_path, {**PLAN, "seed": 2})
    assert found.name in digest_of(PLAN)


def test_rows_outside_the_bank_do_not_exist(tmp_path: Path) -> None:
    make(tmp_path / "bank")
    bank = NoiseBank.open(tmp_path / "bank")
    for number in (-1, 10):
        with pytest.raises(IndexError):
            bank[number]
