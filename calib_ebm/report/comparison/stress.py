"""What becomes of calibration on other sets than the clean one: corrupted, shifted, foreign texts.

From evaluations/stress.csv of each run, which `evaluate` writes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calib_ebm.report import lines
from calib_ebm.report.blocks import Absent, Block, Panel, Panels, Paragraph, Section
from calib_ebm.report.comparison.differences import Combined, combine_estimates
from calib_ebm.report.comparison.find import LeftOut
from calib_ebm.report.comparison.members import STAGES, Member, TaskRuns
from calib_ebm.report.comparison.results import AFTER, BEFORE, as_figure, title_of
from calib_ebm.report.comparison.sheets import Entry, Figure, Sheet
from calib_ebm.report.comparison.shifted import PLAIN_SCORING, differences_under_stress
from calib_ebm.report.lines import Line

FILE = "evaluations/stress.csv"
TITLE = "Under corruption and on other texts"
FIGURES = (f"{BEFORE}/cls/acc", f"{BEFORE}/cal/ece", f"{AFTER}/cal/ece", f"{BEFORE}/nll")
SCORES = {"energy": "Energy", "max_prob": "Confidence", "entropy": "Entropy", "margin": "Margin"}
NONE = (
    "None of these runs has an evaluations/stress.csv: python -m calib_ebm.evaluate writes it when "
    "a run is measured on corrupted or other texts."
)
NONE_OF_TABLES = (
    "Stored tables were measured on their own texts only. Texts of another kind are a folder, and "
    "so a task, of their own."
)

Estimate = tuple[float, float, float]


@dataclass(frozen=True)
class Set:
    """A set that runs were measured on; the clean one has the rate 0."""

    kind: str
    rate: float | None
    """None for a set that is no corruption."""
    name: str


Stress = dict[Set, dict[str, Estimate]]
"""Set -> figure as in metrics.json -> its value and the ends of its interval."""


def read_stress_of(member: Member) -> tuple[Stress, LeftOut | None]:
    """What a run's stress.csv says of its own calibrator and plain scoring, and what is broken."""
    path = member.run.path / FILE
    if not path.is_file():
        return {}, None
    calibrator = member.settings.get("calibrator.name", "temperature")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        found: Stress = {}
        for row in rows:
            if row["scoring"] != PLAIN_SCORING or row["calibrator"] != calibrator:
                continue
            if (estimate := _estimate(row)) is not None:
                found.setdefault(_set(row), {})[row["metric"]] = estimate
        return found, None
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        return {}, LeftOut(path, f"It is no table of a stress evaluation ({error!r}).")


def _set(row: Mapping[str, str]) -> Set:
    clean = row["kind"] == "clean"
    rate = 0.0 if clean else float(row["rate"]) if row["rate"] else None
    return Set(row["kind"], rate, row["set"])


def _estimate(row: Mapping[str, str]) -> Estimate | None:
    """A figure without its interval is not shown."""
    cells = [row[name] for name in ("value", "low", "high")]
    if not all(cells):
        return None
    value, low, high = map(float, cells)
    return (value, low, high) if math.isfinite(value + low + high) else None


# ------------------------------------------------------------------------------------- the page


def stress_section(
    tasks: Sequence[TaskRuns], slugs: Sequence[str], resamples: int, seed: int
) -> tuple[Section, tuple[Sheet, ...], tuple[LeftOut, ...]]:
    """The section, its tables, and the files that could not be read."""
    blocks: list[Block] = []
    left_out: list[LeftOut] = []
    of_tasks: list[tuple[TaskRuns, dict[str, list[Stress]]]] = []
    for task in tasks:
        found: dict[str, list[Stress]] = {}
        for method, runs in task.members.items():
            for run in runs.values():
                stress, broken = read_stress_of(run)
                left_out += [broken] if broken else []
                if stress:
                    found.setdefault(method, []).append(stress)
        of_tasks.append((task, found))
    panels = [
        panel
        for (task, found), slug in zip(of_tasks, slugs, strict=True)
        for panel in _panels(task, found, slug)
    ]
    in_pairs, unread = differences_under_stress(tasks, resamples, seed)
    left_out += unread
    every = (_sets_sheet(of_tasks), in_pairs, _ood_sheet(of_tasks))
    sheets = tuple(sheet for sheet in every if sheet is not None)
    if not sheets:
        tables = all(member.is_table for task in tasks for member in task.every)
        absent = Absent(NONE_OF_TABLES if tables else NONE)
        return Section("stress", TITLE, (absent,)), (), tuple(left_out)
    if panels:
        text = "Top-label ECE of the reported texts as more and more of them is corrupted."
        blocks += [Paragraph(text), Panels(tuple(panels))]
    blocks += [sheet.block() for sheet in sheets]
    return Section("stress", TITLE, tuple(blocks)), sheets, tuple(left_out)


def mean_over_runs(runs: Sequence[Stress], where: Set, figure: str) -> Combined | None:
    """A figure on one set, over the runs that have it."""
    estimates = [run[where][figure] for run in runs if figure in run.get(where, {})]
    return combine_estimates(estimates) if estimates else None


def _panels(task: TaskRuns, found: Mapping[str, list[Stress]], slug: str) -> list[Panel]:
    every = {where for runs in found.values() for run in runs for where in run}
    kinds = sorted({where.kind for where in every if where.kind != "clean" and where.rate})
    panels = []
    for kind in kinds:
        for stage in STAGES:
            drawn = [
                line
                for method, runs in found.items()
                if (line := _growing(method, runs, every, kind, f"{stage}/cal/ece")) is not None
            ]
            if not drawn:
                continue
            title = f"{task.task}: {kind}, {STAGES[stage]}"
            caption = "Lines: means over seeds; bands: 95% intervals over seeds and texts."
            name = f"stress-{slug}-{kinds.index(kind)}-{'before' if stage == BEFORE else 'after'}"
            drawing = lines.lines(
                drawn,
                name,
                f"Top-label ECE against the rate of corruption, {title}. {caption}",
                axis_labels=("Rate of corruption", "Top-label ECE"),
                percent=(True, True),
            )
            panels.append(Panel(title, drawing, caption))
    return panels


def _growing(
    method: str, runs: Sequence[Stress], every: set[Set], kind: str, figure: str
) -> Line | None:
    """A figure against the rate of one kind of corruption, from the clean set on."""
    points = {
        where.rate: mean_over_runs(runs, where, figure)
        for where in _ordered(every)
        if where.kind in ("clean", kind) and where.rate is not None
    }
    known = [(rate, mean) for rate, mean in sorted(points.items()) if mean is not None]
    if len(known) < 2:
        return None
    rate_M = np.asarray([rate for rate, _ in known])
    value, low, high = (
        np.asarray([getattr(mean, name) for _, mean in known]) for name in ("value", "low", "high")
    )
    return Line(method, rate_M, value, np.maximum(low, 0.0), high)


# ----------------------------------------------------------------------------------- its tables


def _sets_sheet(of_tasks: Sequence[tuple[TaskRuns, Mapping[str, list[Stress]]]]) -> Sheet | None:
    rows: list[tuple[Entry, ...]] = []
    for task, found in of_tasks:
        for method, runs in found.items():
            for where in _ordered({w for run in runs for w in run}):
                means = [mean_over_runs(runs, where, figure) for figure in FIGURES]
                if any(means):
                    seeds = max(mean.seeds for mean in means if mean is not None)
                    cells = (as_figure(m, f) for m, f in zip(means, FIGURES, strict=True))
                    rows.append((method, task.task, where.name, seeds, *cells))
    if not rows:
        return None
    caption = (
        "On the clean set and on others: mean over seeds [95% interval, over seeds and texts]."
    )
    head = ("Method", "Task", "Set", "Seeds", *(title_of(figure) for figure in FIGURES))
    return Sheet("stress", caption, head, tuple(rows))


def _ood_sheet(of_tasks: Sequence[tuple[TaskRuns, Mapping[str, list[Stress]]]]) -> Sheet | None:
    rows: list[tuple[Entry, ...]] = []
    for task, found in of_tasks:
        for method, runs in found.items():
            for where in _ordered({w for run in runs for w in run}):
                means = [mean_over_runs(runs, where, f"ood/auroc/{score}") for score in SCORES]
                if any(means):
                    rows.append((method, task.task, where.name, *map(_share, means)))
    if not rows:
        return None
    caption = (
        "AUROC of the task's texts against texts of another task, by four scores: mean over seeds "
        "[95% interval, over seeds and texts]. 50% is a coin's toss."
    )
    head = ("Method", "Task", "Set", *SCORES.values())
    return Sheet("out-of-distribution", caption, head, tuple(rows))


def _ordered(sets: set[Set]) -> list[Set]:
    """The clean set, then by kind and rate."""
    return sorted(sets, key=lambda w: (w.kind != "clean", w.kind, w.rate or 0.0, w.name))


def _share(mean: Combined | None) -> Figure | None:
    if mean is None:
        return None
    return Figure(mean.value, max(mean.low, 0.0), min(mean.high, 1.0), "%", mean.spread)
