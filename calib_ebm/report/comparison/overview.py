"""The sections around the figures: methods, differences, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calib_ebm.report.blocks import Block, Paragraph, Section, Table, row
from calib_ebm.report.comparison.find import LeftOut
from calib_ebm.report.comparison.headline import baseline, methods
from calib_ebm.report.comparison.making import about_tables
from calib_ebm.report.comparison.members import TaskRuns
from calib_ebm.report.comparison.methods import PLAIN_NAMES
from calib_ebm.report.comparison.results import HOW_TO_READ
from calib_ebm.report.comparison.sheets import Sheet
from calib_ebm.report.numbers import count

OF_RUNS = (
    "A method is what differs between the runs, seeds aside. After calibration: by the run's own "
    "calibrator (temperature scaling, unless the method says otherwise), fitted on the fit half "
    "and measured on the other."
)


def methods_section(tasks: Sequence[TaskRuns], sheets: Sequence[Sheet]) -> Section:
    """What the methods are, with the main tables."""
    single = [
        f"{method} on {task.task}"
        for task in tasks
        for method, runs in task.members.items()
        if len(runs) == 1
    ]
    blocks: list[Block] = [*about_tables(tasks)]
    if any(not member.is_table for task in tasks for member in task.every):
        blocks.insert(0, Paragraph(OF_RUNS))
    if single:
        blocks.append(
            Paragraph(
                f"Of one seed only: {', '.join(single)}. Their intervals are over texts alone; "
                "what another seed would give is not known."
            )
        )
    blocks.append(Paragraph(HOW_TO_READ))
    return Section("methods", "Methods and tasks", (*blocks, *(sheet.block() for sheet in sheets)))


def differences_section(tasks: Sequence[TaskRuns], sheets: Sequence[Sheet]) -> Section:
    """Each method against the baseline, or why there is nothing to say."""
    title = "What can be told from chance"
    if not sheets:
        why = "There is no method beside the baseline, or no baseline, so nothing is compared."
        if baseline(tasks) is None:
            why = (
                "None of these runs is plain fine-tuning (energy=none), and no other baseline was "
                "named with baseline=, so there are no differences to it."
            )
            if any(member.is_table for task in tasks for member in task.every):
                known = ", ".join(PLAIN_NAMES[:-1]) + f" or {PLAIN_NAMES[-1]}"
                why += f" Among tables, one method alone that is called {known} is the baseline."
        return Section("differences", title, (Paragraph(why),))
    return Section("differences", title, tuple(sheet.block() for sheet in sheets))


def missing_section(tasks: Sequence[TaskRuns], left_out: Sequence[LeftOut]) -> Section:
    """What was left out and why, and the seeds that some methods lack."""
    blocks: list[Block] = []
    if left_out:
        rows = tuple(row(str(each.folder), each.why) for each in left_out)
        caption = f"{how_many([each.folder for each in left_out])} left out."
        blocks.append(Table(caption, ("Folder or file", "Why"), rows, narrow="stack"))
    else:
        blocks.append(Paragraph("Nothing was left out."))
    lacking = list(_lacking(tasks))
    if lacking:
        rows = tuple(row(*each) for each in lacking)
        caption = "Runs that others have and these lack: their differences rest on fewer pairs."
        blocks.append(Table(caption, ("Task", "Method", "Missing"), rows, narrow="stack"))
    return Section("missing", "What was left out, and what is missing", tuple(blocks))


def how_many(paths: Sequence[Path]) -> str:
    """Folders and files, counted apart."""
    files = sum(path.is_file() for path in paths)
    folders = len(paths) - files
    both = (count(folders, "folder") if folders else "", count(files, "file") if files else "")
    return " and ".join(each for each in both if each)


def _lacking(tasks: Sequence[TaskRuns]) -> list[tuple[str, str, str]]:
    """Task, method, and the seeds that other methods of the task have and this one has not."""
    lacking = []
    for task in tasks:
        every = {seed for runs in task.members.values() for seed in runs}
        for method in sorted(methods(tasks)):
            seeds = sorted(every - set(task.members.get(method, {})))
            if method not in task.members:
                lacking.append((task.task, method, "all seeds"))
            elif seeds:
                lacking.append((task.task, method, f"seed {', '.join(map(str, seeds))}"))
    return lacking
