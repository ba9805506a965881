"""A large table in the making: parts on disk, each whole or absent, joined in their order.

    scored.csv.parts/
      plan.json              all that determines the table
      part-00000000.arrow    a line with digest, key and texts cut; rows as an Arrow IPC stream

The key of a part is a digest of what its rows were made from. Who goes on after a kill asks for a
part by its key, so that one that is damaged, or of other rows, is no part at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from calib_ebm.durable import replacing, write_json
from calib_ebm.report.scored import Write

PLAN = "plan.json"
LONGEST_HEAD = 200
ROWS_OF_A_GROUP = 65_536
"""Of a Parquet file; about as many are held while parts are joined."""


def key_of(value: Any) -> str:
    """Digest of plain values, the same wherever and whenever it is computed."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class MissingPart(LookupError):
    """A part that should be there and is not, or no longer what it was; holds its number."""


class Part(NamedTuple):
    """Some rows of the table."""

    rows: pa.Table
    cut: int
    """How many of their texts were too long for the model."""


class Parts:
    """The parts of one table.

    Args:
        output: the table's final place; the parts lie beside it.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(output.name + ".parts")

    def plan(self) -> dict[str, Any] | None:
        """What the parts there are were made for; None where there is nothing, or half a plan."""
        try:
            plan = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return plan if isinstance(plan, dict) else None

    def begin(self, plan: Mapping[str, Any], *, empty: bool) -> None:
        """Take up the folder for this plan; rid it of the parts that are there where `empty`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in [*self.folder.glob("part-*"), self.folder / PLAN] if empty else ():
            path.unlink(missing_ok=True)
        write_json(self.folder / PLAN, plan)

    def remove(self) -> None:
        """Take all of it away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def numbers(self) -> set[int]:
        """Of the parts that seem to be there."""
        found = (path.stem.removeprefix("part-") for path in self.folder.glob("part-*.arrow"))
        return {int(number) for number in found if number.isdecimal()}

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.arrow"

    def put(self, number: int, key: str, part: Part) -> None:
        """Write a part; it is there whole, or not at all."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.rows.schema) as writer:
            writer.write_table(part.rows)
        content = sink.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        with replacing(self._path(number)) as temporary, temporary.open("wb") as file:
            file.write(f"{digest} {key} {part.cut}\n".encode())
            file.write(content)

    def get(self, number: int, key: str) -> Part | None:
        """A part, if it is there, undamaged and has the key."""
        try:
            with self._path(number).open("rb") as file:
                head = file.readline(LONGEST_HEAD).decode("ascii", "replace").split()
                if len(head) != 3 or head[1] != key:
                    return None
                content = file.read()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != head[0]:
            return None
        return Part(pa.ipc.open_stream(content).read_all(), int(head[2]))

    def has(self, number: int, key: str) -> bool:
        """Whether a part with the key is there; whether it is undamaged `get` finds out."""
        try:
            with self._path(number).open("rb") as file:
                return key.encode() in file.readline(LONGEST_HEAD).split()[1:2]
        except OSError:
            return False

    def join(
        self, keys: Iterable[str], write: Write, done: Callable[[Part], None] = lambda _: None
    ) -> None:
        """Hand on the rows of all parts in order, many at a time.

        Args:
            keys: of the parts, in order.
            write: takes rows.
            done: is told of each part.

        Raises:
            MissingPart: for one that is not there.
        """
        held: list[pa.Table] = []
        for number, key in enumerate(keys):
            part = self.get(number, key)
            if part is None:
                raise MissingPart(number)
            held.append(part.rows)
            if sum(map(len, held)) >= ROWS_OF_A_GROUP:
                write(pa.concat_tables(held))
                held.clear()
            done(part)
        if held:
            write(pa.concat_tables(held))


def digest_of_file(path: Path) -> str:
    """sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
