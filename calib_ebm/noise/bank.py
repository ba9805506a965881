"""The bank: noise texts on disk, as token ids of the classifier.

    bank/
      plan.json            all that determines the bank; its digest is in the folder's name
      shard-00000.arrow    the first samples: ids_a, ids_b, label, source (Arrow IPC, memory-mapped)
      manifest.json        the plan, what happened, size and sha256 of each shard; written last

A bank is made in a sibling folder that ends in `.part` and renamed when it is whole, so a folder of
the final name is a whole bank or a damaged one, and never an unfinished one. An interrupted bank
goes on at the shards that are missing. Processes that want the same bank at once, the ranks of a
launcher or commands that were started twice, share its shards; what a sample is depends on its
number alone, so the bank is the same however many they were.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from calib_ebm.durable import json_bytes, read_json, sync_folder, write_whole
from calib_ebm.errors import InputError
from calib_ebm.lock import claimed, only_one, together
from calib_ebm.noise.sampler import Counts, Drawn
from calib_ebm.noise.seal import changed_file, digest_of, facts_of, is_unbroken, sealed
from calib_ebm.shapes import Encoded

FORMAT = 1
PLAN, MANIFEST = "plan.json", "manifest.json"
SCHEMA = pa.schema(
    [
        ("ids_a", pa.list_(pa.int32())),
        ("ids_b", pa.list_(pa.int32())),
        ("label", pa.int32()),
        ("source", pa.int64()),
    ]
)

DrawShard = Callable[[range], tuple[list[Drawn], Counts]]
"""Draws the samples of these numbers."""


def bank_folder(cache_dir: Path, plan: Mapping[str, Any]) -> Path:
    """Where the bank of a plan lies: found again by the digest of all that determines it."""
    return cache_dir / "noise" / digest_of(plan)[:32]


# ---------------------------------------------------------------------------------------- writing


def shard_size_of(count: int) -> int:
    """Samples of a shard: what a kill loses at most, and what processes share the work in.

    >>> [shard_size_of(count) for count in (100, 100_000, 10_000_000)]
    [1024, 2048, 4096]
    """
    return min(4096, max(1024, -(-count // 64 // 1024) * 1024))


def write_bank(
    folder: Path,
    plan: Mapping[str, Any],
    count: int,
    draw: DrawShard,
    facts: Mapping[str, Any],
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Draw and publish a bank, along with other processes that do so at the same time.

    It goes on with what an interrupted attempt at the same plan left.

    Args:
        folder: the bank's final folder.
        plan: all that determines the bank.
        count: samples.
        draw: draws the samples of a shard.
        facts: further entries of the manifest.
        say: takes a line for the person, when it is waited for the shards of others.

    Returns:
        how many samples were drawn here.

    Raises:
        InputError: when the disk is full; what was finished is kept and taken up again.
    """
    part = folder.with_name(folder.name + ".part")
    size = shard_size_of(count)
    plain = json.loads(json.dumps({**plan, "shard_size": size}))
    shards = {
        part / f"shard-{number:05d}.arrow": range(start, min(start + size, count))
        for number, start in enumerate(range(0, count, size))
    }
    drawn = 0
    with _speaking_of_a_full_disk(folder):
        while True:
            # Together, so that nobody empties the folder meanwhile.
            with together(folder):
                if folder.exists():
                    return drawn
                if read_json(part / PLAN) == plain:
                    drawn += _draw_free_shards(shards, draw)
            # Alone, so that those of others are finished, or those who drew them have died.
            with only_one(folder, say):
                if folder.exists():
                    return drawn
                if read_json(part / PLAN) != plain:
                    part.mkdir(parents=True, exist_ok=True)
                    _empty(part)
                    write_whole(part / PLAN, json_bytes(plain))
                elif _publish(folder, part, shards, {"plan": plain, **facts, "count": count}):
                    return drawn


def _draw_free_shards(shards: Mapping[Path, range], draw: DrawShard) -> int:
    """Draw the shards that are neither there nor being drawn by others; the number of samples."""
    drawn = 0
    for path, numbers in shards.items():
        with claimed(path.with_suffix(".lock")) as ours:
            if ours and _found(path) is None:
                samples, counts = draw(numbers)
                assert len(samples) == len(numbers)
                write_whole(path, _arrow_bytes(samples))
                entry = {"shard": facts_of(path), "counts": vars(counts)}
                write_whole(path.with_suffix(".json"), json_bytes(entry))
                drawn += len(numbers)
    return drawn


def _found(path: Path) -> dict[str, Any] | None:
    """The entry of a shard that is there and whole."""
    entry = read_json(path.with_suffix(".json"))
    if entry is not None and path.exists() and facts_of(path) == entry["shard"]:
        return dict(entry)
    return None


def _publish(
    folder: Path, part: Path, shards: Mapping[Path, range], manifest: dict[str, Any]
) -> bool:
    """Give the bank its name, if all of it is there."""
    entries = [_found(path) for path in shards]
    whole = [entry for entry in entries if entry is not None]
    if len(whole) < len(entries):
        return False
    counts = Counts()
    for entry in whole:
        counts.add(Counts(**entry["counts"]))
    happened = {"drops": counts.dropped, "cut": counts.cut, "symbols": counts.symbols}
    manifest = {"format": FORMAT, **manifest, **happened}
    manifest["shards"] = [entry["shard"] for entry in whole]
    write_whole(part / MANIFEST, json_bytes(sealed(manifest)))
    sync_folder(part)
    part.rename(folder)
    sync_folder(folder.parent)
    # Now, for whoever is killed before the renaming shall not lose them.
    for path in shards:
        (folder / path.with_suffix(".json").name).unlink()
        (folder / path.with_suffix(".lock").name).unlink(missing_ok=True)
    return True


def _arrow_bytes(samples: Sequence[Drawn]) -> memoryview:
    columns = [
        pa.array([drawn.text.ids_a for drawn in samples], SCHEMA.field("ids_a").type),
        pa.array([drawn.text.ids_b for drawn in samples], SCHEMA.field("ids_b").type),
        pa.array([drawn.text.label for drawn in samples], pa.int32()),
        pa.array([drawn.source for drawn in samples], pa.int64()),
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return memoryview(sink.getvalue())


@contextmanager
def _speaking_of_a_full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"The disk is full: the noise bank {folder} could not be written.",
            "a cache folder with room; a sample takes about 4 bytes a token",
            "Make room and give the same command, which goes on where it stopped; or choose "
            "another place with cache_dir=..., or draw less (noise.bank_size, noise.bank_epochs).",
        ) from error


def _empty(part: Path) -> None:
    for file in part.iterdir():
        file.unlink()


# ---------------------------------------------------------------------------------------- reading


class _Shard(NamedTuple):
    """Columns of a shard as arrays over the mapped file."""

    a: np.ndarray
    a_offsets: np.ndarray
    b: np.ndarray
    b_offsets: np.ndarray
    has_b: bool
    label: np.ndarray
    source: np.ndarray


def _read_shard(path: Path) -> _Shard:
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).get_batch(0)
    a, b = table.column("ids_a"), table.column("ids_b")
    return _Shard(
        a.values.to_numpy(),
        a.offsets.to_numpy(),
        b.values.to_numpy(),
        b.offsets.to_numpy(),
        b.null_count == 0,
        table.column("label").to_numpy(),
        table.column("source").to_numpy(),
    )


class NoiseBank(Sequence[Encoded]):
    """The noise texts of a bank by number; only what is read comes into memory.

    Attributes:
        folder: where it lies.
        manifest: what it was made with.
        sources: the row of the text that each sample was drawn around, -1 where none.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = dict(manifest)
        self._shards = [_read_shard(folder / shard["file"]) for shard in manifest["shards"]]
        self._size = int(manifest["plan"]["shard_size"])

    @classmethod
    def open(cls, folder: Path, expect: Mapping[str, Any] | None = None) -> NoiseBank:
        """Open a bank, once it has been found whole.

        Args:
            folder: the bank's.
            expect: entries that its plan must have, e.g. `task` and `tokenizer`.

        Raises:
            InputError: when it is damaged, or the bank of something else.
        """
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or "shards" not in manifest:
            raise _damaged(folder, f"its {MANIFEST} is missing or broken")
        if manifest.get("format") != FORMAT:
            raise _damaged(folder, f"its format is {manifest.get('format')}, not {FORMAT}")
        for name, wanted in (expect or {}).items():
            found = manifest["plan"].get(name)
            if found != wanted:
                raise InputError(
                    f"The noise bank {folder} was drawn for {name} {found!r}.",
                    f"a bank for {name} {wanted!r}",
                    "Draw noise for this task and tokenizer: leave out the path, and the right "
                    "bank is found or drawn.",
                )
        if not is_unbroken(manifest):
            raise _damaged(folder, f"its {MANIFEST} is changed")
        if (changed := changed_file(folder, manifest["shards"])) is not None:
            raise _damaged(folder, f"{changed} is missing, cut short or changed")
        return cls(folder, manifest)

    @property
    def sources(self) -> np.ndarray:
        """The row of the text that each sample was drawn around, -1 where none."""
        return np.concatenate([shard.source for shard in self._shards])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, of both halves of a pair together."""
        parts = [
            np.diff(s.a_offsets) + (np.diff(s.b_offsets) if s.has_b else 0) for s in self._shards
        ]
        return np.concatenate(parts)

    def __len__(self) -> int:
        return int(self.manifest["count"])

    def __getitem__(self, number: int) -> Encoded:  # type: ignore[override]  # one at a time
        if not 0 <= number < len(self):
            raise IndexError(number)
        at, row = divmod(number, self._size)
        shard = self._shards[at]
        ids_b = None
        if shard.has_b:
            ids_b = shard.b[shard.b_offsets[row] : shard.b_offsets[row + 1]].tolist()
        ids_a = shard.a[shard.a_offsets[row] : shard.a_offsets[row + 1]].tolist()
        return Encoded(ids_a, ids_b, int(shard.label[row]))


def _damaged(folder: Path, why: str) -> InputError:
    return InputError(
        f"The noise bank {folder} is damaged: {why}.",
        "a whole bank, as it was written",
        "Remove the folder; the same command draws the bank again.",
    )
