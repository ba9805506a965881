"""The work of `predict`: windows of texts to parts of the table, and these to the table."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from calib_ebm.durable import replacing, write_json
from calib_ebm.errors import InputError, Interrupted
from calib_ebm.learn.devices import device_of, set_threads
from calib_ebm.learn.models import Ensemble
from calib_ebm.learn.predict_plan import Job
from calib_ebm.learn.processes import Copies, Place, abandoned
from calib_ebm.learn.progress import Tally, shown
from calib_ebm.learn.record import command_line, git_commit, versions
from calib_ebm.report.parts import MissingPart, Part, Parts, digest_of_file
from calib_ebm.report.scored import ending_of, table_writer
from calib_ebm.shapes import Example
from calib_ebm.text.inputs import InputRow, digest_of, windows

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
POLL, WORD = 0.2, 60.0
"""Seconds between two looks at what others have done, and between two lines about waiting."""


class Work:
    """One process's share of a job, and what only the first one does.

    Args:
        job: what is scored.
        parts: where it goes.
        config: resolved settings of `conf/predict.yaml`.
        place: which process this is.
        say: takes lines for the person.
        copies: the other processes, where this one started them.
    """

    def __init__(
        self,
        job: Job,
        parts: Parts,
        config: Mapping[str, Any],
        place: Place,
        say: Callable[[str], None],
        copies: Copies | None = None,
    ) -> None:
        self.job, self.parts, self.config, self.place = job, parts, config, place
        self.say = say if place.rank == 0 else _say_nothing
        self.copies = copies
        self.ensemble: Ensemble | None = None
        self.keys: list[str] = []
        self.again = self.cut = 0
        self.tally = Tally(job.found.rows)

    def sweep(self) -> None:
        """Read all rows and score the windows of this process's share that are not there.

        Raises:
            InputError: when the input is not what it was when it was read first.
        """
        there, whole = self.parts.numbers(), blake2b(digest_size=16)
        with shown("scoring", self.tally, self.say) as show:
            for number, window in enumerate(windows(self.job.rows(), self.job.window)):
                digest = digest_of(window)
                whole.update(digest.encode())
                key = self.job.key(digest)
                self.keys.append(key)
                new = number not in there
                if number % self.place.world == self.place.rank:
                    new = self._ensure(number, key, window)
                    self.again += new and number in there
                elif new:
                    self.tally.begin()
                self.tally.add(len(window), new=new)
                self._look_at_others()
                show()
        if whole.hexdigest() != self.job.found.digest:
            raise InputError(
                f"{self.job.source.path} was changed while it was scored.",
                "an input that stays as it is",
                "Give the same command again: what has not changed is not scored again.",
            )

    def _ensure(self, number: int, key: str, window: Sequence[InputRow]) -> bool:
        """Have the part of a window; whether it had to be scored."""
        if self.parts.get(number, key) is not None:
            return False
        if self.ensemble is None:
            self.ensemble = self._load()
        self.tally.begin()
        self.parts.put(number, key, self._score(self.ensemble, number, window))
        return True

    def _load(self) -> Ensemble:
        device = device_of(str(self.config["device"]), self.place)
        set_threads(self.config["threads"], device, self.place)
        return Ensemble(self.job.models, device, self.job.tokens, bf16=self.job.bf16)

    def _score(self, ensemble: Ensemble, number: int, window: Sequence[InputRow]) -> Part:
        columns = self.job.columns
        places = [place for place, row in enumerate(window) if not row.is_empty]
        probs_BC, cut = np.zeros((0, len(columns.labels))), 0
        energy_B = np.zeros(0) if columns.has_energy else None
        if places:
            rows = [window[place] for place in places]
            examples = [Example("", row.text, row.text_pair, -1) for row in rows]
            probs_BC, energy_B, cut = ensemble.score(examples, seed=number)
        return Part(columns.table([row.kept for row in window], places, probs_BC, energy_B), cut)

    # ----------------------------------------------------------------------- the other processes

    def _look_at_others(self) -> bool:
        """Whether others are at work still, as far as this one knows."""
        if abandoned():
            raise Interrupted("The process that started this one is gone.")
        return self.copies.check() if self.copies is not None else self.place.world > 1

    def wait_for_others(self) -> None:
        """Until all parts are there; what others that have ended left out is done here.

        Raises:
            InputError: when one ended in the middle of its share.
        """
        spoken = time.monotonic()
        at_work = True
        for number, key in enumerate(self.keys):
            while at_work and not self.parts.has(number, key):
                at_work = self._look_at_others()
                time.sleep(POLL)
                if time.monotonic() - spoken > WORD:
                    spoken = time.monotonic()
                    self.say(f"Waiting for process {number % self.place.world}.")

    # --------------------------------------------------------------------------------- the table

    def finish(self) -> None:
        """Join the parts, write the record, take the parts away."""
        output = self.job.output
        try:
            self._join(output)
        except MissingPart:
            # Damaged since, or left out by a process that saw other texts.
            self.place = Place(0, 1, self.place.local)
            self.keys.clear()
            self.tally = Tally(self.job.found.rows)
            self.sweep()
            self._join(output)
        facts = {
            "plan": self.job.plan,
            "command": command_line(),
            "commit": git_commit(),
            "versions": versions(),
            "input": {"path": str(self.job.source.path), "rows": self.job.found.rows},
            "models": [str(model.folder) for model in self.job.models],
            "labels": list(self.job.columns.labels),
            "empty": self.job.found.empty,
            "cut": self.cut,
            "scored_last": self.tally.new,
            "seconds_last": self.tally.seconds,
            "output": {"bytes": output.stat().st_size, "sha256": digest_of_file(output)},
        }
        write_json(self.job.record, facts)
        self.parts.remove()

    def _join(self, output: Path) -> None:
        columns, tally = self.job.columns, Tally(self.job.found.rows)
        tally.begin()
        cut = 0

        def each(part: Part) -> None:
            nonlocal cut
            cut += part.cut
            tally.add(len(part.rows), new=True)
            show()

        with (
            shown("writing", tally, self.say) as show,
            replacing(output) as temporary,
            table_writer(temporary, ending_of(output), columns.schema(), columns.as_json) as write,
        ):
            self.parts.join(self.keys, write, each)
        self.cut = cut

    def remarks(self) -> str:
        """What a person should know of what was done, as sentences."""
        said = ""
        if self.tally.new:
            said += f" {self.tally.new:,} scored now, {self.tally.rate:,.0f} a second."
        if self.again:
            said += (
                f" {self.again:,} windows had changed since, or were damaged, and were made again."
            )
        if self.cut:
            said += f" {self.cut:,} texts were longer than the model takes, and were cut."
        return said


def _say_nothing(_: str) -> None:
    """Where another process speaks."""


@contextmanager
def speaking_of_the_disk(parts: Path) -> Iterator[None]:
    """What a disk that is full, or may not be written, is called.

    Args:
        parts: where parts lie.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        # Where writing fails, and not opening, the system does not say which file it was.
        where = error.filename or parts
        raise InputError(
            f"{where}: {error.strerror}.",
            "a folder that this user may write, on a disk with room for the output twice",
            "Put that right and give the same command, which goes on from what is scored; or "
            "choose another output=.",
        ) from error
