"""The comparison page, and the files of its tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calib_ebm.errors import InputError
from calib_ebm.report.atomic import write_json_atomic, write_text_atomic
from calib_ebm.report.blocks import Block, Page, Paragraph, Section, Table, Tile, Tiles, row
from calib_ebm.report.comparison import confidence, energy, stress
from calib_ebm.report.comparison.differences import difference, mean_of
from calib_ebm.report.comparison.find import LeftOut, folders_of, read_all, split_patterns
from calib_ebm.report.comparison.members import TaskRuns, gather, resample
from calib_ebm.report.comparison.results import (
    AFTER,
    BEFORE,
    HOW_TO_READ,
    as_figure,
    cost_sheet,
    differences_sheet,
    overview_sheets,
    settings_sheet,
    slug_of,
    slugs_of,
    task_sheet,
)
from calib_ebm.report.comparison.sheets import Figure, Sheet
from calib_ebm.report.files import CONFIG, REPORT, RUN
from calib_ebm.report.numbers import count
from calib_ebm.report.page import render

MANIFEST = "comparison.json"
TABLES = "tables"
ENDINGS = ("csv", "md", "tex")
_OURS = re.compile(r"[a-z0-9-]+\.(csv|md|tex)")


@dataclass(frozen=True)
class Comparison:
    """Many runs, read, grouped and resampled: all that the page is made from."""

    tasks: tuple[TaskRuns, ...]
    left_out: tuple[LeftOut, ...]
    baseline: str | None
    sheets: tuple[Sheet, ...]
    page: Page


def write_comparison(
    runs: str | Sequence[str],
    out: Path | str | None = None,
    *,
    baseline: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Path, Comparison]:
    """Compare run folders and write the page, and every table as CSV, Markdown and LaTeX.

    Args:
        runs: paths and patterns, a list of them or one text with commas.
        out: the folder to write to; None: reports/<a name made of the patterns>.
        baseline: name of a method; None: plain fine-tuning, where there is one.
        resamples: of the texts, for the intervals.
        seed: of the resamples.

    Returns:
        the page's path, and what it was made from.

    Raises:
        InputError: no run can be used, no method has that name, or `out` holds something else.
    """
    patterns = split_patterns(runs) if isinstance(runs, str) else tuple(runs)
    folder = Path("reports") / name_of(patterns) if out is None else Path(out).expanduser()
    _check_out(folder)
    if resamples < 2:
        raise InputError(
            f"resamples is {resamples}.", "a whole number from 2", "Leave it at 1,000."
        )
    comparison = compare(folders_of(patterns), baseline, resamples=resamples, seed=seed)
    path = folder / REPORT
    _write_tables(folder, comparison)
    write_text_atomic(path, render(comparison.page))
    return path, comparison


def compare(
    folders: tuple[Path, ...], baseline: str | None, *, resamples: int, seed: int
) -> Comparison:
    """Read the runs and compose the page.

    Raises:
        InputError: none of the folders can be used, or no method has the baseline's name.
    """
    found = read_all(folders)
    tasks, further = gather(found.runs, baseline) if found.runs else ((), ())
    left_out = (*found.left_out, *further)
    if not tasks:
        reasons = " ".join(f"{each.folder}: {each.why}" for each in left_out[:5])
        raise InputError(
            f"None of {count(len(folders), 'folder')} can be compared. {reasons}",
            "folders of finished runs",
            "Give such folders with runs=..., or let the runs finish.",
        )
    for task in tasks:
        for runs in task.members.values():
            for member in runs.values():
                resample(member, resamples, seed)
    slugs = slugs_of(tasks)
    energies, broken = energy.energies_section(tasks, slugs)
    under_stress, stress_sheets, unread = stress.stress_section(tasks, slugs)
    left_out += (*broken, *unread)
    main = tuple(task_sheet(task, slug) for task, slug in zip(tasks, slugs, strict=True))
    settings, overview = settings_sheet(tasks), overview_sheets(tasks)
    differences = differences_sheet(tasks)
    associations, cost = energy.association_sheet(tasks, seed), cost_sheet(tasks)
    page = Page(
        title=_title(tasks),
        kicker=_kicker(tasks),
        summary=_summary(tasks),
        tiles=_tiles(tasks[0]),
        sections=(
            _methods_section(tasks, [s for s in (settings, *overview, *main) if s is not None]),
            _differences_section(tasks, differences),
            confidence.reliability_section(tasks, slugs),
            confidence.risk_section(tasks, slugs),
            confidence.training_section(tasks, slugs),
            confidence.pairs_section(tasks, slugs),
            energies,
            energy.analysis_section(tasks, slugs, associations),
            under_stress,
            Section("cost", "What it cost", (cost.block(),)),
            _missing_section(tasks, left_out),
        ),
    )
    sheets = [settings, *overview, *main, differences, associations, *stress_sheets, cost]
    kept = tuple(sheet for sheet in sheets if sheet is not None)
    return Comparison(tasks, left_out, _baseline(tasks), kept, page)


def name_of(patterns: Sequence[str]) -> str:
    """A folder's name for the runs of these patterns: always the same for the same ones.

    >>> name_of(["runs/sst2-*"])
    'runs-sst2'
    """
    name = slug_of("-".join(patterns))
    # Patterns that differ in signs only, or beyond the name's length.
    plain = re.sub(r"[^a-z0-9]+", "-", "-".join(patterns).lower()).strip("-*")
    if len(plain) > len(name) or len(patterns) > 1:
        name += "-" + hashlib.sha256("\0".join(patterns).encode()).hexdigest()[:6]
    return name


def _check_out(folder: Path) -> None:
    there = [name for name in (CONFIG, RUN) if (folder / name).exists()]
    if there or (folder.exists() and not folder.is_dir()):
        holds = f"holds {there[0]}: it is a run's folder" if there else "is no folder"
        raise InputError(
            f"out={folder} {holds}.",
            "a new folder, or one of an earlier comparison, which is replaced",
            "Give another folder with out=..., or leave it out.",
        )


def _write_tables(folder: Path, comparison: Comparison) -> None:
    """Write the tables and what they were made of; rid the folder of an earlier page's tables."""
    for name in _earlier(folder / MANIFEST):
        (folder / TABLES / name).unlink(missing_ok=True)
    written = []
    for sheet in comparison.sheets:
        texts = zip(ENDINGS, (sheet.csv(), sheet.markdown(), sheet.latex()), strict=True)
        for ending, text in texts:
            name = f"{sheet.slug}.{ending}"
            write_text_atomic(folder / TABLES / name, text)
            written.append(name)
    manifest = {
        "tables": written,
        "baseline": comparison.baseline,
        "runs": [
            {"folder": str(m.run.path), "task": t.task, "method": method, "seed": seed}
            for t in comparison.tasks
            for method, runs in t.members.items()
            for seed, m in runs.items()
        ],
        "left_out": [{"folder": str(e.folder), "why": e.why} for e in comparison.left_out],
    }
    write_json_atomic(folder / MANIFEST, manifest)


def _earlier(manifest: Path) -> list[str]:
    """Names of the tables that an earlier comparison wrote here."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))["tables"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str) and _OURS.fullmatch(name)]


# -------------------------------------------------------------------------------- what it says


def _baseline(tasks: Sequence[TaskRuns]) -> str | None:
    return next((task.baseline for task in tasks if task.baseline is not None), None)


def _methods(tasks: Sequence[TaskRuns]) -> set[str]:
    return {method for task in tasks for method in task.methods}


def _title(tasks: Sequence[TaskRuns]) -> str:
    names = ", ".join(task.task for task in tasks)
    many = len(_methods(tasks))
    what = count(many, "method") if many > 1 else "One method"
    return f"{what} on {names}"


def _kicker(tasks: Sequence[TaskRuns]) -> str:
    runs = sum(len(of) for task in tasks for of in task.members.values())
    seeds = sorted({seed for task in tasks for of in task.members.values() for seed in of})
    base = _baseline(tasks)
    parts = (
        count(runs, "run"),
        count(len(tasks), "task"),
        f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} only",
        f"baseline: {base}" if base else "no baseline",
    )
    return " · ".join(parts)


def _summary(tasks: Sequence[TaskRuns]) -> str:
    said = [_finding(task) for task in tasks[:4]]
    if len(tasks) > len(said):
        said.append(f"{count(len(tasks) - len(said), 'further task')} below.")
    return " ".join(said)


def _finding(task: TaskRuns) -> str:
    """What was found on one task, in a sentence or two."""
    name = f"{BEFORE}/cal/ece"
    means = {m: as_figure(mean_of(runs, name), name) for m, runs in task.members.items()}
    known = {method: mean for method, mean in means.items() if mean is not None}
    lowest = min(known, key=lambda method: known[method].value)
    start = f"On {task.task}, {count(task.texts, 'reported text')}"
    if task.baseline is None or task.baseline == lowest:
        return f"{start}, {lowest} has the lowest top-label ECE as trained, {_said(known[lowest])}."
    gap = difference(task.members[lowest], task.members[task.baseline], name)
    verdict = "they share no seed, so that the difference is not known"
    if gap is not None:
        figure = as_figure(gap, name, of_level=False)
        sure = "is more than chance" if gap.sure else "cannot be told from chance"
        verdict = f"the difference, {figure.signed if figure else ''} points, {sure}"
    return (
        f"{start}, the confidence of {task.baseline} is off by {_said(known[task.baseline])} on "
        f"average (top-label ECE, as trained); that of {lowest} by {_said(known[lowest])}: "
        f"{verdict}."
    )


def _said(figure: Figure) -> str:
    return f"{figure.text} {figure.interval}"


def _tiles(task: TaskRuns) -> Tiles:
    """The first task's top-label ECE of up to four methods, before and after."""
    tiles = []
    for method in task.methods[:4]:
        for stage, called in ((BEFORE, "ECE as trained"), (AFTER, "after calibration")):
            name = f"{stage}/cal/ece"
            figure = as_figure(mean_of(task.members[method], name), name)
            if figure is not None:
                tiles.append(Tile(f"{method}: {called}", figure.text, figure.interval))
    return Tiles(tuple(tiles))


def _methods_section(tasks: Sequence[TaskRuns], sheets: Sequence[Sheet]) -> Section:
    single = [
        f"{method} on {task.task}"
        for task in tasks
        for method, runs in task.members.items()
        if len(runs) == 1
    ]
    blocks: list[Block] = [
        Paragraph(
            "A method is what differs between the runs, seeds aside. After calibration: by the "
            "run's own calibrator (temperature scaling, unless the method says otherwise), fitted "
            "on the fit half and measured on the other."
        )
    ]
    if single:
        blocks.append(
            Paragraph(
                f"Of one seed only: {', '.join(single)}. Their intervals are over texts alone; "
                "what another seed would give is not known."
            )
        )
    blocks.append(Paragraph(HOW_TO_READ))
    return Section("methods", "Methods and tasks", (*blocks, *(sheet.block() for sheet in sheets)))


def _differences_section(tasks: Sequence[TaskRuns], sheet: Sheet | None) -> Section:
    title = "What can be told from chance"
    if sheet is None:
        why = "There is no method beside the baseline, or no baseline, so nothing is compared."
        if _baseline(tasks) is None:
            why = (
                "None of these runs is plain fine-tuning (energy=none), and no other baseline was "
                "named with baseline=, so there are no differences to it."
            )
        return Section("differences", title, (Paragraph(why),))
    return Section("differences", title, (sheet.block(),))


def _missing_section(tasks: Sequence[TaskRuns], left_out: Sequence[LeftOut]) -> Section:
    blocks: list[Block] = []
    if left_out:
        rows = tuple(row(str(each.folder), each.why) for each in left_out)
        caption = f"{count(len(left_out), 'folder')} left out."
        blocks.append(Table(caption, ("Folder", "Why"), rows, narrow="stack"))
    else:
        blocks.append(Paragraph("No folder was left out."))
    lacking = list(_lacking(tasks))
    if lacking:
        rows = tuple(row(*each) for each in lacking)
        caption = "Runs that others have and these lack: their differences rest on fewer pairs."
        blocks.append(Table(caption, ("Task", "Method", "Missing"), rows, narrow="stack"))
    return Section("missing", "What was left out, and what is missing", tuple(blocks))


def _lacking(tasks: Sequence[TaskRuns]) -> list[tuple[str, str, str]]:
    """Task, method, and the seeds that other methods of the task have and this one has not."""
    lacking = []
    for task in tasks:
        every = {seed for runs in task.members.values() for seed in runs}
        for method in sorted(_methods(tasks)):
            seeds = sorted(every - set(task.members.get(method, {})))
            if method not in task.members:
                lacking.append((task.task, method, "all seeds"))
            elif seeds:
                lacking.append((task.task, method, f"seed {', '.join(map(str, seeds))}"))
    return lacking
