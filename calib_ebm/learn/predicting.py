"""`predict`: texts of a file of any size, scored by a finished model or several.

input  ->  survey: can every row be read?         (`text/inputs.py`)
       ->  windows, scored by length              (`windows.py`, `models.py`)
       ->  parts on disk, joined in their order   (`report/parts.py`, `report/scored.py`)

A part is known by what its rows were made from: their texts and kept cells, the model's files, the
settings. So a part that is there under its key is right, whatever happened in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from calib_ebm.errors import InputError, Interrupted
from calib_ebm.learn.predict_plan import Job, read_job
from calib_ebm.learn.predict_work import Work, speaking_of_the_disk
from calib_ebm.learn.processes import Copies, Place, abandoned, place_of
from calib_ebm.learn.quiet import quieten
from calib_ebm.lock import only_one
from calib_ebm.report.parts import Parts

Say = Callable[[str], None]
POLL, PATIENCE = 0.2, 600.0
"""Seconds between two looks at whether the first process has begun, and until it is given up."""


def predict(config: Mapping[str, Any], say: Say) -> Path:
    """Score what is not scored yet, and write the table.

    Args:
        config: resolved settings of `conf/predict.yaml`.
        say: takes lines for the person.

    Returns:
        the table's place.

    Raises:
        InputError: for whatever a person has to put right; what is scored by then is kept.
        Interrupted: when the process that started this one is gone.
    """
    quieten()
    started = time.time()
    place, processes = _place(config)
    job = read_job(config, say)
    parts = Parts(job.output)
    with speaking_of_the_disk(parts.folder), ExitStack() as held:
        if place.rank:
            if _begun_elsewhere(job, parts, started):
                Work(job, parts, config, place, say).sweep()
            return job.output
        if _is_done(job, config, say):
            return job.output
        held.enter_context(only_one(parts.folder, say, inside=True))
        if _is_done(job, config, say):  # by a process that held the lock until now
            parts.remove()
            return job.output
        if not config["overwrite"]:
            job.require_same_recipe(parts)
        parts.begin(job.plan, empty=not job.is_recipe_of(parts))
        _tell(job, parts, say)
        copies = held.enter_context(Copies(processes)) if processes > 1 else None
        work = Work(job, parts, config, place, say, copies)
        work.sweep()
        work.wait_for_others()
        work.finish()
    spent = timedelta(seconds=round(time.time() - started))
    say(f"{job.found.rows:,} rows in {job.output.name} after {spent}.{work.remarks()}")
    return job.output


def _place(config: Mapping[str, Any]) -> tuple[Place, int]:
    """Which process this is, and how many it has to be: 1 where others started them."""
    place, asked = place_of(os.environ), config["processes"]
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise InputError(f"processes is {asked!r}.", "a whole number from 1", "Correct it.")
    if place.world > 1:
        if asked not in (1, place.world):
            raise InputError(
                f"processes={asked}, and {place.world} were started.",
                f"{place.world}, or 1, under torchrun or srun",
                "Leave processes= out.",
            )
        return place, 1
    return Place(0, asked, 0), asked


def _is_done(job: Job, config: Mapping[str, Any], say: Say) -> bool:
    if config["overwrite"] or not job.is_finished():
        return False
    say(f"{job.output} is finished: nothing is scored. overwrite=true scores it again.")
    return True


def _tell(job: Job, parts: Parts, say: Say) -> None:
    """What is scored, and what is there already."""
    found, source = job.found, job.source
    pair = f" and {job.text_pair!r}" if job.text_pair else ""
    kept = f"; kept: {', '.join(job.keep)}" if job.keep else ""
    say(f"{source.path}: {found.rows:,} rows, texts in {job.text!r}{pair}{kept}")
    if found.empty:
        lines = ", ".join(map(str, found.first_empty)) + ", ..." * (found.empty > 5)
        say(
            f"note: {found.empty:,} have an empty text ({source.unit} {lines}); their rows are "
            "written without scores."
        )
    there = min(len(parts.numbers()) * job.window, found.rows)
    if there:
        say(f"Going on: some {there:,} texts are scored already.")


def _begun_elsewhere(job: Job, parts: Parts, started: float) -> bool:
    """Wait until the first process has begun; false where it found all of it finished.

    Raises:
        InputError: when it does not begin.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if abandoned():
            raise Interrupted("The process that started this one is gone.")
        if parts.plan() == job.plan:
            return True
        is_new = job.record.exists() and job.record.stat().st_mtime >= started
        if job.output.exists() and (is_new or not parts.folder.exists()):
            return False
        time.sleep(POLL)
    raise InputError(
        f"The first process has not begun {parts.folder} after {PATIENCE:.0f} s.",
        "processes that see the same files, the first one (rank 0) among them",
        "Start all of them, with the same settings and a shared disk.",
    )
