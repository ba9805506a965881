"""The figures about energies: data, noise and other texts; entropy and being right; both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from calib_ebm.calibration.association import rank_draws, spearman
from calib_ebm.errors import InputError
from calib_ebm.report import lines
from calib_ebm.report.blocks import Absent, Block, Panel, Panels, Paragraph, Section
from calib_ebm.report.columns import Floats
from calib_ebm.report.comparison.differences import combine
from calib_ebm.report.comparison.find import LeftOut
from calib_ebm.report.comparison.members import Member, TaskRuns
from calib_ebm.report.comparison.results import BEFORE
from calib_ebm.report.comparison.sheets import Entry, Figure, Sheet
from calib_ebm.report.diagrams import robust_limits
from calib_ebm.report.files import read_predictions
from calib_ebm.report.numbers import count, decimals
from calib_ebm.report.predictions import FILE as PREDICTIONS
from calib_ebm.report.sections.analysis import (
    HOW_TO_READ,
    Told,
    associations,
    extremes,
    panels,
    resamples_for,
    told_by,
)

EVALUATIONS = "evaluations"
MOST_SETS = 2
"""Of other texts in one histogram."""
NO_ENERGY = "None of these runs has an energy: all are plain fine-tuning."
NONE_IN_TABLES = "None of these stored tables has a column of energies (energy=)."
NEITHER = "None of these runs and stored tables has an energy, or a column of energies (energy=)."


def with_energy(task: TaskRuns) -> dict[str, Told]:
    """The methods whose run has energies, and what these tell of the reported texts."""
    told = {method: told_by(task.one_of(method).test) for method in task.methods}
    return {method: each for method, each in told.items() if each is not None}


def _no_energy(tasks: Sequence[TaskRuns]) -> str:
    are_tables = {member.is_table for task in tasks for member in task.every}
    if len(are_tables) > 1:
        return NEITHER
    return NONE_IN_TABLES if True in are_tables else NO_ENERGY


# ------------------------------------------------------------------ data, noise and other texts


def energies_section(
    tasks: Sequence[TaskRuns], slugs: Sequence[str]
) -> tuple[Section, tuple[LeftOut, ...]]:
    """Histograms of energies, and the evaluations that could not be read for them."""
    panels: list[Panel] = []
    left_out: list[LeftOut] = []
    for task, slug in zip(tasks, slugs, strict=True):
        for place, method in enumerate(with_energy(task)):
            member = task.one_of(method)
            sets, broken = other_texts(member)
            left_out += broken
            panels.append(_histogram(task, member, sets, f"{slug}-{place}"))
    title = "Energies of data, noise and other texts"
    if not panels:
        return Section("energies", title, (Absent(_no_energy(tasks)),)), tuple(left_out)
    text = (
        "Low energy: looks like the task's texts. None of these texts was trained on. Other texts "
        "are those of the run's evaluations, where it has any (evaluate run=... data=...)."
    )
    return Section("energies", title, (Paragraph(text), Panels(tuple(panels)))), tuple(left_out)


def other_texts(member: Member) -> tuple[dict[str, Floats], list[LeftOut]]:
    """Energies of the sets that a run was evaluated on, its own half aside; and what is broken."""
    sets: dict[str, Floats] = {}
    left_out = []
    own = member.test.ids
    for path in sorted(member.run.path.glob(f"{EVALUATIONS}/*/{PREDICTIONS}")):
        try:
            test = read_predictions(path.parent).of("test")
        except InputError as error:
            left_out.append(LeftOut(path.parent, error.given))
            continue
        same = set(test.ids) == set(own) and _energies_by_id(test) == _energies_by_id(member.test)
        if test.energy_N is not None and not same:
            sets[path.parent.name] = test.energy_N
    return sets, left_out


def _energies_by_id(test: object) -> dict[str, float]:
    ids, energy_N = test.ids, test.energy_N  # type: ignore[attr-defined]
    if energy_N is None:
        return {}
    return dict(zip(ids, np.round(energy_N, 4).tolist(), strict=True))


def _histogram(task: TaskRuns, member: Member, sets: dict[str, Floats], slug: str) -> Panel:
    assert member.test.energy_N is not None
    samples: dict[str, Floats] = {"data": member.test.energy_N}
    if member.run.energies is not None and len(member.run.energies.noise_N):
        samples["noise"] = member.run.energies.noise_N
    shown = dict(list(sets.items())[:MOST_SETS])
    samples |= {f"other texts: {name}": energy_N for name, energy_N in shown.items()}
    samples = {name: energy_N[np.isfinite(energy_N)] for name, energy_N in samples.items()}
    medians = "; ".join(
        f"{name}: {count(len(energy_N), 'text')}, median {decimals(float(np.median(energy_N)))}"
        for name, energy_N in samples.items()
        if len(energy_N)
    )
    more = len(sets) - len(shown)
    caption = f"Dashed: the medians. {medians}." + (
        f" {count(more, 'further set')} not drawn." if more else ""
    )
    drawing = lines.histograms(
        samples,
        robust_limits(list(samples.values())),
        f"energies-{slug}",
        f"Histograms of energy on {task.task}, {member.label}. {caption}",
    )
    return Panel(f"{task.task}: {member.label}", drawing, caption)


# ------------------------------------------------------------- entropy, being right, both ends


def association_sheet(tasks: Sequence[TaskRuns], seed: int) -> Sheet | None:
    """Rank correlation of energy with entropy and with being right, over seeds and texts."""
    rows: list[tuple[Entry, ...]] = []
    for task in tasks:
        for method in with_energy(task):
            runs = list(task.members[method].values())
            told = [each for run in runs if (each := told_by(run.test)) is not None]
            found = [_over_seeds(told, name, seed) for name in ("entropy", "being right")]
            rows.append((method, task.task, len(told), *found))
    if not rows:
        return None
    caption = (
        "Spearman's rank correlation of a text's energy with the entropy of its class "
        "probabilities and with the prediction's being right: mean over seeds [95% interval, over "
        "seeds and texts]."
    )
    head = ("Method", "Task", "Seeds", "Energy and entropy", "Energy and being right")
    return Sheet("energy-correlations", caption, head, tuple(rows))


def _over_seeds(told: Sequence[Told], name: str, seed: int) -> Figure | None:
    values, resampled = [], []
    for each in told:
        x_N, y_N = associations(each)[name]
        drawn_R = rank_draws(x_N, y_N, resamples=resamples_for(len(x_N)), seed=seed).numpy()
        value = spearman(x_N, y_N)
        if not np.isfinite(value) or not np.isfinite(drawn_R).all():
            return None
        values.append(value)
        resampled.append(drawn_R)
    if len({len(drawn_R) for drawn_R in resampled}) != 1:
        return None
    mean = combine(values, resampled)
    # The normal interval of a mean of correlations may reach beyond what a correlation can be.
    low, high = max(mean.low, -1.0), min(mean.high, 1.0)
    return Figure(mean.value, low, high, "", mean.spread)


def analysis_section(
    tasks: Sequence[TaskRuns], slugs: Sequence[str], sheet: Sheet | None
) -> Section:
    """What the energies tell, with the texts at both ends."""
    title = "What the energy tells"
    if sheet is None:
        return Section("analysis", title, (Absent(_no_energy(tasks)),))
    blocks: list[Block] = [Paragraph(HOW_TO_READ), sheet.block()]
    for task, slug in zip(tasks, slugs, strict=True):
        found = with_energy(task)
        for place, (method, told) in enumerate(found.items()):
            name = f"{task.task}, {task.one_of(method).label}"
            blocks.append(Panels(panels(told, f"{slug}-{place}", name)))
        if found:
            blocks += _both_ends(task, found)
    return Section("analysis", title, tuple(blocks))


def _both_ends(task: TaskRuns, found: Mapping[str, Told]) -> tuple[Block, ...]:
    """The texts at both ends for one run; those of others are on the pages of their runs."""
    # A table has no texts, and ids alone say nothing.
    found = {name: told for name, told in found.items() if not task.one_of(name).is_table}
    if not found:
        return ()
    method = min(found, key=lambda each: task.one_of(each).values[f"{BEFORE}/cal/ece"])
    member = task.one_of(method)
    name = f"{task.task}, {member.label}"
    if len(found) > 1:
        name += "; those of the other methods are on the pages of their runs"
    labels = member.run.run.labels
    low, high = (
        extremes(found[method], member.run.texts, labels, end, name)
        for end in ("lowest", "highest")
    )
    return (low, high)
