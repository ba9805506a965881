"""How runs were made: the settings in which methods differ, and the cost; how tables were read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from calib_ebm.report.blocks import Absent, Block, Bullets, Paragraph, Section
from calib_ebm.report.comparison.members import Member, TaskRuns
from calib_ebm.report.comparison.sheets import Amount, Entry, Sheet
from calib_ebm.report.numbers import count

NOT_OF_TABLES = "Stored tables of predictions do not say what it cost to make them."


def settings_sheet(tasks: Sequence[TaskRuns]) -> Sheet | None:
    """Every setting in which the methods of a task differ, the decided ones too; None of one."""
    rows: list[tuple[Entry, ...]] = []
    for task in tasks:
        flats = {m: next(iter(runs.values())).settings for m, runs in task.members.items()}
        differing = sorted(
            name
            for name in {name for flat in flats.values() for name in flat}
            if len({repr(flat[name]) for flat in flats.values() if name in flat}) > 1
        )
        for method, flat in flats.items():
            if task.one_of(method).is_table:
                continue  # Its settings are not known.
            said = ", ".join(f"{name}={flat[name]}" for name in differing if name in flat)
            rows.append((method, task.task, said))
    if len(rows) <= len(tasks):
        return None
    caption = "All settings in which the methods of a task differ."
    return Sheet("settings", caption, ("Method", "Task", "Settings"), tuple(rows))


def cost_sheet(tasks: Sequence[TaskRuns]) -> Sheet | None:
    """Seconds and memory of each method, mean over its runs; None where all are stored tables."""
    rows: list[tuple[Entry, ...]] = []
    for task in tasks:
        for method, runs in task.members.items():
            if task.one_of(method).is_table:
                continue
            trained = [_stage(run, ("train",)) for run in runs.values()]
            noise = [_stage(run, ("tune_noise", "draw_noise")) for run in runs.values()]
            peaks = [
                max((s.peak_memory_mb for s in run.run.run.stages.values()), default=math.nan)
                for run in runs.values()
            ]
            costs = (_over_runs(each) for each in (trained, noise, peaks))
            rows.append((method, task.task, len(runs), *costs))
    if not rows:
        return None
    head = ("Method", "Task", "Runs", "Training, s", "Noise, s", "Peak memory, MB")
    caption = (
        "Mean over runs, with ± the standard deviation over them. Noise is tuned and drawn once, "
        "and shared by the runs that want the same: it counts where it was made."
    )
    return Sheet("cost", caption, head, tuple(rows))


def _stage(run: Member, names: Sequence[str]) -> float:
    stages: Mapping[str, object] = run.run.run.stages
    done = [run.run.run.stages[name] for name in names if name in stages]
    seconds = [stage.seconds for stage in done if not stage.skipped]
    return sum(seconds) if seconds else math.nan


def _over_runs(values: Sequence[float]) -> Amount | None:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    return Amount(fmean(known), stdev(known) if len(known) > 1 else None)


def cost_section(sheet: Sheet | None) -> Section:
    """The cost, or that it is not known."""
    block = Absent(NOT_OF_TABLES) if sheet is None else sheet.block()
    return Section("cost", "What it cost", (block,))


def about_tables(tasks: Sequence[TaskRuns]) -> tuple[Block, ...]:
    """How stored tables were read, where there are such."""
    tables = [member for task in tasks for member in task.every if member.is_table]
    if not tables:
        return ()
    labels_of: dict[str, list[str]] = {}
    for member in tables:
        for note in member.run.run.notes:
            labels_of.setdefault(note, []).append(f"{member.label} on {member.task}")
    text = (
        f"{count(len(tables), 'stored table')}: the task is the name of the folder, the method and "
        "the seed that of the file. All figures and floors are computed from the tables; "
        "their calibrator is temperature scaling."
    )
    items = tuple(f"{_whose(every, len(tables))}: {note}" for note, every in labels_of.items())
    return (Paragraph(text), Bullets(items)) if items else (Paragraph(text),)


def _whose(labels: Sequence[str], tables: int) -> str:
    """Which tables a note is about: all, the only one, or some, of which four are named."""
    if len(labels) == tables:
        return "Each table" if tables > 1 else "The table"
    more = f" and {len(labels) - 4} more" if len(labels) > 4 else ""
    return "; ".join(labels[:4]) + more
