"""What a method is worth in labels: as it was trained, beside a temperature fitted on few of them.

Only plain fine-tuning followed by temperature scaling costs nothing but labels, so this is what a
method that needs none has to be held against, by whoever has to decide how many texts to label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from calib_ebm.calibration.few_labels import FewLabels, after_few_labels, sizes_for
from calib_ebm.errors import InputError
from calib_ebm.report.blocks import Block, Panel, Panels, Paragraph, Section
from calib_ebm.report.columns import Floats
from calib_ebm.report.comparison.members import BINS, Member, TaskRuns
from calib_ebm.report.comparison.sheets import Entry, Figure, Sheet
from calib_ebm.report.lines import Line, lines
from calib_ebm.report.numbers import count, percent

DRAWS = 100
ENDS = (5, 95)
"""Percentiles of the draws between which a range lies."""
TITLE = "What it is worth in labels"
ABOUT = (
    "Of the reported texts some are drawn to be labelled, a temperature is fitted on these, and "
    "all is measured on texts that no draw of any size has touched: {draws} draws for each seed, "
    "the same for all methods. Without labels a method is as it was trained."
)
NEEDED = (
    "this takes a baseline and another method on the same seeds, and at least 20 reported texts of "
    "two classes."
)
ECE_CAPTION = (
    "Top-label ECE by the number of labels that a temperature is fitted on, mean over draws and "
    f"seeds [{ENDS[0]}th to {ENDS[1]}th percentile of the draws]. It is measured on fewer texts "
    "than the figures above, so that chance makes it larger."
)
SHARE_CAPTION = (
    "In how many of the draws the method without labels has the lower ECE than the baseline with "
    "so many. Worth: the number of labels, between those that were tried, from which on "
    "it has so in less than half of them."
)


@dataclass(frozen=True)
class Drawn:
    """A task's methods after temperatures fitted on few labels.

    Attributes:
        sizes: numbers of labels, the first one 0.
        measured: texts that all of it is measured on.
        ece_SR: method -> seed -> for each size, the ECE of all draws.
    """

    task: TaskRuns
    sizes: tuple[int, ...]
    measured: int
    ece_SR: dict[str, dict[int, Floats]]

    def of_all(self, method: str) -> Floats:
        """For each size, the ECE of all draws, seed after seed."""
        return np.concatenate(list(self.ece_SR[method].values()), axis=1)

    def lower_S(self, method: str) -> Floats:
        """Share of draws in which the method without labels is below the baseline with some."""
        mine, theirs = self.ece_SR[method], self.ece_SR[self.task.baseline or ""]
        lower = [mine[seed][:1] < theirs[seed] for seed in mine if seed in theirs]
        return np.concatenate(lower, axis=1).mean(axis=1)


def worth_section(
    tasks: Sequence[TaskRuns], slugs: Sequence[str], seed: int, draws: int = DRAWS
) -> tuple[Section, tuple[Sheet, ...]]:
    """The figures and the tables; a sentence where there is nothing to hold against another.

    Args:
        tasks: of the comparison.
        slugs: of the tasks, for the names of drawings.
        seed: of the draws.
        draws: for each run.
    """
    found = [drawn for task in tasks if (drawn := draw(task, seed, draws)) is not None]
    if not found:
        return Section("labels", TITLE, (Paragraph(f"Nothing is said: {NEEDED}"),)), ()
    slug_of = dict(zip((task.task for task in tasks), slugs, strict=True))
    panels = tuple(_panel(drawn, slug_of[drawn.task.task]) for drawn in found)
    sheets = (_ece_sheet(found), _share_sheet(found))
    without = [task.task for task in tasks if all(task is not one.task for one in found)]
    about = ABOUT.format(draws=draws)
    if without:
        about += f" Not of {', '.join(without)}: {NEEDED}"
    blocks: tuple[Block, ...] = (
        Paragraph(about),
        Panels(panels),
        *(sheet.block() for sheet in sheets),
    )
    return Section("labels", TITLE, blocks), sheets


def draw(task: TaskRuns, seed: int, draws: int) -> Drawn | None:
    """All methods of a task after few labels; None where there is nothing to compare."""
    sizes = sizes_for(task.texts)
    others = [
        name
        for name, runs in task.members.items()
        if task.baseline is not None
        and name != task.baseline
        and set(runs) & set(task.members[task.baseline])
    ]
    if not others or not sizes:
        return None
    labels_N = torch.from_numpy(task.first.test.labels_N)
    found: dict[str, dict[int, FewLabels]] = {}
    for name in (task.baseline or "", *others):
        found[name] = {}
        for run_seed, run in task.members[name].items():
            logits_NC = torch.from_numpy(run.test.logits_NC)
            try:
                found[name][run_seed] = after_few_labels(
                    logits_NC,
                    labels_N,
                    (0, *sizes),
                    draws=draws,
                    seed=seed,
                    bins=BINS,
                    prior=_prior_of(run),
                )
            except InputError:
                return None  # labels of one class, or of one that is hardly ever met
    ece_SR = {
        name: {run_seed: one.ece_SR.numpy() for run_seed, one in runs.items()}
        for name, runs in found.items()
    }
    return Drawn(task, (0, *sizes), task.texts - max(sizes), ece_SR)


def _prior_of(run: Member) -> float:
    """Of the run's own temperature; 0 where it has another calibrator."""
    prior = run.settings.get("calibrator.prior", 0.0)
    if run.settings.get("calibrator.name") != "temperature":
        return 0.0
    return float(prior) if isinstance(prior, int | float) and 0 <= prior < math.inf else 0.0


def worth_of(sizes: Sequence[int], lower_S: Floats) -> str:
    """From how many labels on the baseline has the lower ECE in at least half of the draws.

    Args:
        sizes: numbers of labels, rising, from 1 on.
        lower_S: share of draws in which the method is lower, for each.

    >>> worth_of([10, 100], np.array([0.75, 0.25])), worth_of([10, 100], np.array([0.9, 0.6]))
    ('30', 'more than 100')
    >>> worth_of([10, 100], np.array([0.4, 0.6]))
    'fewer than 10'
    """
    below = np.flatnonzero(np.asarray(lower_S) < 0.5)
    if not len(below):
        return f"more than {sizes[-1]:,}"
    first = int(below[0])
    if first == 0:
        return f"fewer than {sizes[0]:,}"
    ahead, behind = lower_S[first - 1], lower_S[first]
    share = (ahead - 0.5) / (ahead - behind)
    between = np.log(sizes[first - 1]) + share * np.log(sizes[first] / sizes[first - 1])
    # To one figure: it is known no better.
    return f"{float(f'{np.exp(between):.0e}'):,.0f}"


def _panel(drawn: Drawn, slug: str) -> Panel:
    base = drawn.task.baseline or ""
    x = np.asarray(drawn.sizes[1:], dtype=np.float64)
    of_base = drawn.of_all(base)
    low, high = np.percentile(of_base[1:], ENDS, axis=1)
    curve = of_base[1:].mean(axis=1)
    name = f"{base}, temperature on so many labels"
    shown = [Line(name, x, curve, low, high)]
    for method in drawn.ece_SR:
        if method != base:
            level = np.full(len(x), drawn.of_all(method)[0].mean())
            shown.append(Line(f"{method}, without labels", x, level))
    caption = (
        f"Measured on {count(drawn.measured, 'text')}; {base} without labels: "
        f"{percent(of_base[0].mean())}. Band: {ENDS[0]}th to {ENDS[1]}th percentile."
    )
    label = f"Top-label ECE against the number of labels on {drawn.task.task}. {caption}"
    drawing = lines(
        shown,
        f"labels-{slug}",
        label,
        axis_labels=("Labels", "Top-label ECE"),
        percent=(False, True),
        log_x=True,
    )
    return Panel(drawn.task.task, drawing, caption)


def _ece_sheet(found: Sequence[Drawn]) -> Sheet:
    sizes = _all_sizes(found)
    rows: list[tuple[Entry, ...]] = []
    for drawn in found:
        for method, runs in drawn.ece_SR.items():
            cells: list[Entry] = [None] * len(sizes)
            for size, ece_D in zip(drawn.sizes, drawn.of_all(method), strict=True):
                low, high = (float(end) for end in np.percentile(ece_D, ENDS))
                cells[sizes.index(size)] = Figure(float(ece_D.mean()), low, high, "%")
            rows.append((method, drawn.task.task, len(runs), *cells))
    head = ("Method", "Task", "Seeds", "No label", *(f"{size:,} labels" for size in sizes[1:]))
    return Sheet("few-labels", ECE_CAPTION, head, tuple(rows))


def _share_sheet(found: Sequence[Drawn]) -> Sheet:
    sizes = _all_sizes(found)[1:]
    rows: list[tuple[Entry, ...]] = []
    for drawn in found:
        for method in drawn.ece_SR:
            if method == drawn.task.baseline:
                continue
            lower_S = drawn.lower_S(method)[1:]
            cells: list[Entry] = [None] * len(sizes)
            for size, share in zip(drawn.sizes[1:], lower_S, strict=True):
                cells[sizes.index(size)] = percent(float(share)).removesuffix("%")
            worth = worth_of(drawn.sizes[1:], lower_S)
            rows.append((method, drawn.task.task, worth, *cells))
    head = ("Method", "Task", "Worth, labels", *(f"Lower than {size:,}, %" for size in sizes))
    return Sheet("few-labels-share", SHARE_CAPTION, head, tuple(rows))


def _all_sizes(found: Sequence[Drawn]) -> list[int]:
    return sorted({size for drawn in found for size in drawn.sizes})
