"""The comparison page, and the files of its tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calib_ebm.durable import write_json, write_text
from calib_ebm.errors import InputError
from calib_ebm.report.blocks import Page
from calib_ebm.report.comparison import confidence, energy, few, stress
from calib_ebm.report.comparison.find import (
    MANIFEST,
    TABLES,
    LeftOut,
    paths_of,
    read_all,
    split_patterns,
)
from calib_ebm.report.comparison.headline import baseline as baseline_of
from calib_ebm.report.comparison.headline import kicker, summary, tiles, title
from calib_ebm.report.comparison.making import cost_section, cost_sheet, settings_sheet
from calib_ebm.report.comparison.members import TaskRuns, gather, resample
from calib_ebm.report.comparison.overview import (
    differences_section,
    how_many,
    methods_section,
    missing_section,
)
from calib_ebm.report.comparison.paired import differences_sheets
from calib_ebm.report.comparison.results import (
    overview_sheets,
    slug_of,
    slugs_of,
    task_sheet,
)
from calib_ebm.report.comparison.sheets import Sheet
from calib_ebm.report.comparison.stored import TableSettings
from calib_ebm.report.files import CONFIG, REPORT, RUN
from calib_ebm.report.page import render

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
    tables: TableSettings | None = None,
) -> tuple[Path, Comparison]:
    """Compare runs and stored tables: write the page, and its tables as CSV, Markdown and LaTeX.

    Args:
        runs: paths and patterns, a list of them or one text with commas.
        out: the folder to write to; None: reports/<a name made of the patterns>.
        baseline: name of a method; None: plain fine-tuning, where there is one.
        resamples: of the texts, for the intervals.
        seed: of the resamples.
        tables: how stored tables are to be read; None: by the usual names of columns.

    Returns:
        the page's path, and what it was made from.

    Raises:
        InputError: nothing can be used, no method has that name, `out` holds something else, or
            tables have settings and there is none.
    """
    patterns = split_patterns(runs) if isinstance(runs, str) else tuple(runs)
    folder = Path("reports") / name_of(patterns) if out is None else Path(out).expanduser()
    _check_out(folder)
    if resamples < 2:
        raise InputError(
            f"resamples is {resamples}.", "a whole number from 2", "Leave it at 1,000."
        )
    paths = paths_of(patterns)
    given = tables.given() if tables is not None else []
    if given and not any(one.is_file() for one in paths):
        raise InputError(
            f"{', '.join(given)} given, and runs= names no table.",
            "these settings where there are tables: a run's predictions have their own columns",
            "Leave them out.",
        )
    comparison = compare(paths, baseline, resamples=resamples, seed=seed, tables=tables)
    path = folder / REPORT
    _write_tables(folder, comparison)
    write_text(path, render(comparison.page))
    return path, comparison


def compare(
    paths: tuple[Path, ...],
    asked: str | None,
    *,
    resamples: int,
    seed: int,
    tables: TableSettings | None = None,
) -> Comparison:
    """Read the runs and tables and compose the page.

    Raises:
        InputError: none of the paths can be used, or no method has the baseline's name.
    """
    found = read_all(paths, tables)
    tasks, further = gather(found.runs, asked) if found.runs else ((), ())
    left_out = (*found.left_out, *further)
    if not tasks:
        raise _none_left(paths, left_out)
    for task in tasks:
        for member in task.every:
            resample(member, resamples, seed)
    slugs = slugs_of(tasks)
    energies, broken = energy.energies_section(tasks, slugs)
    under_stress, stress_sheets, unread = stress.stress_section(tasks, slugs, resamples, seed)
    left_out += (*broken, *unread)
    worth, worth_sheets = few.worth_section(tasks, slugs, seed)
    sheets = _Sheets.of(tasks, slugs, seed)
    page = Page(
        title=title(tasks),
        kicker=kicker(tasks),
        summary=summary(tasks),
        tiles=tiles(tasks[0]),
        sections=(
            methods_section(tasks, sheets.methods),
            differences_section(tasks, sheets.differences),
            worth,
            confidence.reliability_section(tasks, slugs),
            confidence.risk_section(tasks, slugs),
            confidence.training_section(tasks, slugs),
            confidence.pairs_section(tasks, slugs),
            energies,
            energy.analysis_section(tasks, slugs, sheets.associations),
            under_stress,
            cost_section(sheets.cost),
            missing_section(tasks, left_out),
        ),
    )
    return Comparison(
        tasks, left_out, baseline_of(tasks), sheets.all((*worth_sheets, *stress_sheets)), page
    )


@dataclass(frozen=True)
class _Sheets:
    """The tables of a comparison; None for one of which there is nothing to say."""

    methods: tuple[Sheet, ...]
    differences: tuple[Sheet, ...]
    associations: Sheet | None
    cost: Sheet | None

    @classmethod
    def of(cls, tasks: Sequence[TaskRuns], slugs: Sequence[str], seed: int) -> _Sheets:
        main = (task_sheet(task, slug) for task, slug in zip(tasks, slugs, strict=True))
        methods = (settings_sheet(tasks), *overview_sheets(tasks), *main)
        return cls(
            methods=tuple(sheet for sheet in methods if sheet is not None),
            differences=differences_sheets(tasks),
            associations=energy.association_sheet(tasks, seed),
            cost=cost_sheet(tasks),
        )

    def all(self, further: Sequence[Sheet]) -> tuple[Sheet, ...]:
        """In the order in which they are written."""
        every = (
            *self.methods,
            *self.differences,
            self.associations,
            *further,
            self.cost,
        )
        return tuple(sheet for sheet in every if sheet is not None)


def _none_left(paths: Sequence[Path], left_out: Sequence[LeftOut]) -> InputError:
    reasons = " ".join(f"{each.folder}: {each.why}" for each in left_out[:5])
    allowed, to_do = "folders of finished runs", "Give such folders with runs=..."
    if any(path.is_file() for path in paths):
        allowed += (
            ", and tables with a row for each text: probabilities or logits, a label, and an id"
        )
        to_do += ", name a table's columns with probs=, logits=, label=, id=, split= and energy="
    return InputError(
        f"None of {how_many(paths)} can be compared. {reasons}",
        allowed,
        f"{to_do}, or let the runs finish.",
    )


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
            write_text(folder / TABLES / name, text)
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
    write_json(folder / MANIFEST, manifest)


def _earlier(manifest: Path) -> list[str]:
    """Names of the tables that an earlier comparison wrote here."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))["tables"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str) and _OURS.fullmatch(name)]
