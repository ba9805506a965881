"""The figures about confidence: reliability, risk and coverage, training, two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from calib_ebm.report import diagrams, lines
from calib_ebm.report.blocks import Absent, Block, Panel, Panels, Paragraph, Section
from calib_ebm.report.columns import Floats
from calib_ebm.report.comparison.differences import mean_of
from calib_ebm.report.comparison.members import STAGES, Member, TaskRuns
from calib_ebm.report.comparison.results import AFTER, BEFORE, as_figure
from calib_ebm.report.lines import Line
from calib_ebm.report.numbers import count, percent
from calib_ebm.report.sections.reliability import HOW_TO_READ, bins_of_probs
from calib_ebm.report.sections.training import logged
from calib_ebm.report.shares import share_text

MOST_METHODS = 8
"""Of one task with diagrams of their own; the tables have them all."""
MOST_PAIRS = 4
ECE = "val/cal/ece"
SINGLE = "of one seed, so that nothing is said about others"


def reliability_section(tasks: Sequence[TaskRuns], slugs: Sequence[str]) -> Section:
    """Reliability diagrams of all methods, as trained and after calibration."""
    blocks: list[Block] = [
        Paragraph(
            f"{HOW_TO_READ} Bins of fewer than {diagrams.FEW} texts are faint. Each diagram is of "
            "one run."
        )
    ]
    for task, slug in zip(tasks, slugs, strict=True):
        blocks += [Paragraph(f"{task.task}:")] if len(tasks) > 1 else []
        shown = task.methods[:MOST_METHODS]
        for place, method in enumerate(shown):
            both = (_reliability(task.one_of(method), s, f"{slug}-{place}") for s in STAGES)
            blocks.append(Panels(tuple(both)))
        if len(shown) < len(task.methods):
            more = count(len(task.methods) - len(shown), "further method")
            blocks.append(Absent(f"{more} of {task.task} are in the tables only."))
    return Section("reliability", "Is the confidence right?", tuple(blocks))


def _reliability(member: Member, stage: str, slug: str) -> Panel:
    labels_N = torch.from_numpy(member.test.labels_N)
    bins = bins_of_probs(member.probs[stage], labels_N)
    title = f"{member.label}, {STAGES[stage]}"
    ece = as_figure(mean_of({member.seed: member}, f"{stage}/cal/ece"), f"{stage}/cal/ece")
    caption = "" if ece is None else f"Top-label ECE {ece.text} {ece.interval}."
    drawing = diagrams.reliability(
        bins, f"reliability-{slug}-{_short(stage)}", f"Reliability diagram, {title}. {caption}"
    )
    return Panel(title, drawing, caption)


def _short(stage: str) -> str:
    return {BEFORE: "before", AFTER: "after"}[stage]


# ------------------------------------------------------------------------- risk and coverage


def risk_section(tasks: Sequence[TaskRuns], slugs: Sequence[str]) -> Section:
    """How the error falls when the least confident texts are left to somebody else."""
    panels = tuple(
        _risk_panel(task, slug) for task, slug in zip(tasks, slugs, strict=True) if task.texts > 1
    )
    text = (
        "Keep only the texts that the classifier is most confident of: the share of errors among "
        "those kept, against how many are kept. A lower curve knows better when it does not know. "
        "Temperature scaling leaves it as it is when there are two classes."
    )
    return Section("risk", "Risk and coverage", (Paragraph(text), Panels(panels)))


def risk_at(probs_NC: Floats, labels_N: Floats, coverage_M: Floats) -> Floats:
    """Share of errors among the most confident texts, at each coverage.

    Texts of the same confidence cannot be told apart: of a part of them, the share of errors is
    that of all.
    """
    confidence_N = probs_NC.max(axis=1)
    wrong_N = (probs_NC.argmax(axis=1) != labels_N).astype(np.float64)
    _, group_N = np.unique(-confidence_N, return_inverse=True)
    kept_U = np.cumsum(np.bincount(group_N)).astype(np.float64)
    wrong_U = np.cumsum(np.bincount(group_N, weights=wrong_N))
    many_M = coverage_M * len(wrong_N)
    errors_M = np.interp(many_M, np.append(0.0, kept_U), np.append(0.0, wrong_U))
    return np.asarray(errors_M / many_M)


def _risk_panel(task: TaskRuns, slug: str) -> Panel:
    # From where ten texts are kept: the share of errors among fewer jumps.
    coverage_M = np.linspace(min(1.0, max(0.05, 10 / task.texts)), 1.0, 60)
    drawn = []
    for method, runs in task.members.items():
        risks = [
            risk_at(run.probs[BEFORE].numpy(), run.test.labels_N.astype(float), coverage_M)
            for run in runs.values()
        ]
        drawn.append(_line(method, coverage_M, risks))
    caption = f"{count(task.texts, 'text')}, as trained. {_about_bands(task)}"
    drawing = lines.lines(
        drawn,
        f"risk-{slug}",
        f"Risk against coverage on {task.task}. {caption}",
        axis_labels=("Share of texts kept", "Errors among them"),
        percent=(True, True),
    )
    return Panel(task.task, drawing, caption)


def _line(name: str, x: Floats, values: Sequence[Floats]) -> Line:
    """The mean over seeds, with the range of all seeds around it where there are several."""
    stacked = np.stack(values)
    if len(values) == 1:
        return Line(name, x, stacked[0])
    return Line(name, x, stacked.mean(axis=0), stacked.min(axis=0), stacked.max(axis=0))


def _about_bands(task: TaskRuns) -> str:
    single = [method for method, runs in task.members.items() if len(runs) == 1]
    several = "Lines: means over seeds; bands: from the lowest to the highest seed."
    if not single:
        return several
    alone = f"Without a band: {SINGLE}."
    return alone if len(single) == len(task.members) else f"{several} {alone}"


# ----------------------------------------------------------------------------- while training


def training_section(tasks: Sequence[TaskRuns], slugs: Sequence[str]) -> Section:
    """ECE over the steps of training, a line for each method."""
    title = "Calibration while training"
    panels = tuple(
        panel
        for task, slug in zip(tasks, slugs, strict=True)
        if (panel := _training_panel(task, slug)) is not None
    )
    if not panels:
        why = "No run's history.csv has a top-label ECE that was measured while training."
        if all(member.is_table for task in tasks for member in task.every):
            why = "Stored tables of predictions do not tell of the training."
        return Section("training", title, (Absent(why),))
    text = (
        "Top-label ECE of the fit half, before calibration, while the classifier is trained: does "
        "longer training make it worse?"
    )
    return Section("training", title, (Paragraph(text), Panels(panels)))


def _training_panel(task: TaskRuns, slug: str) -> Panel | None:
    drawn = []
    for method, runs in task.members.items():
        curves = [_course(run) for run in runs.values()]
        if (line := mean_course(method, [curve for curve in curves if curve])) is not None:
            drawn.append(line)
    if not drawn:
        return None
    course = "; ".join(
        f"{line.name}: {_at(line, 0)} at step {line.x[0]:.0f}, "
        f"{_at(line, -1)} at step {line.x[-1]:.0f}"
        for line in drawn
    )
    caption = f"{_about_bands(task)} {course}."
    drawing = lines.lines(
        drawn,
        f"course-{slug}",
        f"Top-label ECE over steps on {task.task}. {caption}",
        axis_labels=("Step", "Top-label ECE"),
        percent=(False, True),
    )
    return Panel(task.task, drawing, caption)


def _at(line: Line, place: int) -> str:
    """A value of a line, and the range of the seeds there."""
    value = percent(float(line.y[place]))
    if line.low is None or line.high is None:
        return value
    low, high = percent(float(line.low[place])), percent(float(line.high[place]))
    return f"{value} ({low.removesuffix('%')} to {high.removesuffix('%')})"


def _course(run: Member) -> dict[float, float]:
    """Step to ECE."""
    step = run.run.history.get("step")
    if step is None or (points := logged(step, run.run.history.get(ECE))) is None:
        return {}
    return dict(zip(points[0].tolist(), points[1].tolist(), strict=True))


def mean_course(name: str, curves: Sequence[Mapping[float, float]]) -> Line | None:
    """The line of a method, at the steps that all of its curves have."""
    if not curves:
        return None
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not steps:
        return None
    values = [np.asarray([curve[step] for step in steps]) for curve in curves]
    return _line(name, np.asarray(steps), values)


# ------------------------------------------------------------------------- two runs, one text


def pairs_section(tasks: Sequence[TaskRuns], slugs: Sequence[str]) -> Section:
    """The confidence of the baseline and of other methods in the same texts."""
    title = "The same texts, two runs"
    panels: list[Panel] = []
    for task, slug in zip(tasks, slugs, strict=True):
        others = [method for method in task.methods if method != task.baseline]
        if task.baseline is None or not others:
            continue
        for place, method in enumerate(others[:MOST_PAIRS]):
            panels.append(_pair_panel(task, method, f"{slug}-{place}"))
    if not panels:
        why = "There is no baseline with another method beside it, so no two runs can be paired."
        return Section("pairs", title, (Absent(why),))
    text = (
        "Each point is a reported text: how probable its predicted class is to the baseline "
        "(across) and to the other run (up), as trained. Below the dashed line the other run is "
        "less sure."
    )
    return Section("pairs", title, (Paragraph(text), Panels(tuple(panels))))


def sides_of(a: Member, b: Member) -> dict[str, tuple[Floats, Floats]]:
    """Confidences of two runs in the same texts, by who is right."""
    sure_a, right_a = _sure_and_right(a)
    sure_b, right_b = _sure_and_right(b)
    kinds = {
        "both right": right_a & right_b,
        "only the baseline right": right_a & ~right_b,
        "only the other right": ~right_a & right_b,
        "both wrong": ~right_a & ~right_b,
    }
    return {name: (sure_a[kind], sure_b[kind]) for name, kind in kinds.items()}


def _sure_and_right(member: Member) -> tuple[Floats, np.ndarray]:
    probs_NC = member.probs[BEFORE].numpy()
    return probs_NC.max(axis=1), probs_NC.argmax(axis=1) == member.test.labels_N


def _pair_panel(task: TaskRuns, method: str, slug: str) -> Panel:
    assert task.baseline is not None
    runs, base = task.members[method], task.members[task.baseline]
    common = sorted(set(runs) & set(base))
    a = base[common[0]] if common else task.one_of(task.baseline)
    b = runs[common[0]] if common else task.one_of(method)
    sides = sides_of(a, b)
    groups = {f"{name} ({len(x):,})": (x, y) for name, (x, y) in sides.items()}
    less = sum(int((y < x).sum()) for x, y in sides.values())
    caption = (
        f"{a.label} across, {b.label} up. {count(task.texts, 'text')}; the other run is less sure "
        f"of {share_text(less, task.texts)} of them."
    )
    low = 1 / a.probs[BEFORE].shape[1]
    drawing = lines.scatter(
        groups,
        f"pair-{slug}",
        f"Confidence of two runs in the same texts on {task.task}. {caption}",
        axis_labels=("Confidence of the baseline", "Confidence of the other run"),
        limits=((low - 0.02, 1.02), (low - 0.02, 1.02)),
        percent=(True, True),
        diagonal=True,
    )
    return Panel(f"{task.task}: {method}", drawing, caption)
