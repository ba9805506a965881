"""A run as one of many: its method, its probabilities, and every figure on shared resamples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calib_ebm.calibration import errors
from calib_ebm.calibration.calibrators import build_calibrator
from calib_ebm.calibration.crossfit import crossfit_probabilities
from calib_ebm.calibration.estimates import LabelledSet, named_estimate
from calib_ebm.calibration.floors import null_draws, p_value
from calib_ebm.calibration.resample import Sums, bootstrap, gap_sums
from calib_ebm.errors import InputError
from calib_ebm.report.columns import Floats
from calib_ebm.report.comparison.devset import apart, dev_set, filled
from calib_ebm.report.comparison.find import LeftOut
from calib_ebm.report.comparison.methods import (
    Flat,
    find_baseline,
    method_settings,
    names_with_tables,
)
from calib_ebm.report.files import Predictions, RunFolder

BINS = 20
STAGES = {"test": "as trained", "test_calibrated": "after calibration"}
"""Prefix in metrics.json, and how it is called."""
FIGURES = ("cal/ece", "nll", "brier", "selective/aurc")
"""Beside the task's own and, where the truth is known, cal/true."""
AGREES = 1e-3
"""A run's ECE in metrics.json and from its predictions differ by less."""


@dataclass(frozen=True)
class Member:
    """A run with its method."""

    run: RunFolder
    method: str
    settings: Flat
    test: Predictions
    """Of the half that is reported."""
    probs: dict[str, Tensor]
    """Stage -> probabilities of the reported texts, N by C."""
    resampled: dict[str, Floats] = field(default_factory=dict)
    """Figure ("test/nll") -> its value on each of R resamples of the texts, which are the same for
    all members of a task, so that differences of these are differences in pairs."""
    values: dict[str, float] = field(default_factory=dict)
    """Figure -> its value."""

    @property
    def task(self) -> str:
        """The task's name."""
        return self.run.run.task

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.run.seed

    @property
    def label(self) -> str:
        """Method and seed."""
        return f"{self.method}, seed {self.seed}"

    @property
    def is_table(self) -> bool:
        """Whether this is a stored table and no run of ours."""
        return self.run.method is not None


@dataclass(frozen=True)
class TaskRuns:
    """The runs of one task that can be compared, by method and seed."""

    task: str
    members: dict[str, dict[int, Member]]
    """Method -> seed -> run; the baseline first, then by name."""
    baseline: str | None

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order in which they are shown."""
        return tuple(self.members)

    @property
    def texts(self) -> int:
        """How many texts are reported on."""
        return len(self.first.test.ids)

    @property
    def first(self) -> Member:
        """Any run: all have the same texts."""
        return next(iter(next(iter(self.members.values())).values()))

    @property
    def every(self) -> tuple[Member, ...]:
        """All runs and tables, method by method."""
        return tuple(run for runs in self.members.values() for run in runs.values())

    def one_of(self, method: str) -> Member:
        """The run that stands for a method where only one can be drawn.

        It is the one of the smallest seed that all methods of the task have, where there is one.
        """
        seeds = set.intersection(*(set(runs) for runs in self.members.values()))
        runs = self.members[method]
        return runs[min(seeds & set(runs) or set(runs))]


def gather(
    runs: Sequence[RunFolder], baseline: str | None
) -> tuple[tuple[TaskRuns, ...], tuple[LeftOut, ...]]:
    """Runs by task, method and seed; those that fit no comparison are left out.

    Raises:
        InputError: no method has the name of the baseline that was asked for.
    """
    settings = [method_settings(run.config) for run in runs]
    # A table has no settings: not even those that stand for plain fine-tuning where none are.
    settings = [{} if run.method else flat for run, flat in zip(runs, settings, strict=True)]
    tasks_of = [run.run.task for run in runs]
    names = names_with_tables(tasks_of, settings, [run.method for run in runs])
    chosen = find_baseline(names, settings, baseline)
    members: list[Member] = []
    left_out: list[LeftOut] = []
    for run, name, flat in zip(runs, names, settings, strict=True):
        try:
            members.append(member_of(run, name, flat))
        except InputError as error:
            left_out.append(LeftOut(run.path, error.given))
    tasks = []
    for task in sorted({member.task for member in members}):
        of_task, others = comparable([m for m in members if m.task == task], chosen)
        left_out += others
        tasks.append(TaskRuns(task, of_task, chosen if chosen in of_task else None))
    return tuple(tasks), tuple(left_out)


def member_of(run: RunFolder, name: str, flat: Flat) -> Member:
    """Probabilities before and after the run's own calibrator, fitted again on its fit half.

    Raises:
        InputError: it cannot be fitted, or metrics.json tells of other predictions.
    """
    fit, test = run.predictions.of("fit"), run.predictions.of("test")
    config = run.config.get("calibrator")
    config = config if isinstance(config, dict) else {"name": "temperature"}
    probs = dict(zip(STAGES, (test.probs_NC(), _calibrated(config, fit, test)), strict=True))
    told = run.metrics.get("test/cal/ece")
    found = errors.ece_top_label(probs["test"], torch.from_numpy(test.labels_N), BINS).item()
    if told is not None and not abs(told - found) < AGREES:
        given = f"Its metrics.json tells of a top-label ECE of {told:.4f}, its predictions"
        raise InputError(f"{given} of {found:.4f}.", "files of one run", "Run it again.")
    return Member(_with_floors(run, probs), name, flat, test, probs)


def _with_floors(run: RunFolder, probs: Mapping[str, Tensor]) -> RunFolder:
    """The run with the floor of each ECE that its metrics do not have: no ECE without one."""
    labels_N = torch.from_numpy(run.predictions.of("test").labels_N)
    floors: dict[str, float] = {}
    for stage, probs_NC in probs.items():
        name = f"{stage}/cal/ece"
        if f"{name}/floor" in run.metrics:
            continue
        null_R = null_draws(probs_NC, bins=BINS, seed=run.run.seed, names=("cal/ece",))["cal/ece"]
        found = errors.ece_top_label(probs_NC, labels_N, BINS).item()
        floors |= {f"{name}/floor": null_R.mean().item(), f"{name}/p_value": p_value(null_R, found)}
    return replace(run, metrics={**run.metrics, **floors}) if floors else run


def _calibrated(config: Mapping[str, Any], fit: Predictions, test: Predictions) -> Tensor:
    """The reported texts' probabilities after a calibrator that was fitted on others."""
    if test.folds_N is not None:
        # Fit and reported texts are the same: each fold by a calibrator that has not seen it.
        crossfitted_NC = crossfit_probabilities(
            lambda: build_calibrator(config),
            torch.from_numpy(test.logits_NC),
            torch.from_numpy(test.labels_N),
            torch.from_numpy(test.folds_N),
        )
        return crossfitted_NC.double()
    calibrator = build_calibrator(config)
    calibrator.fit(torch.from_numpy(fit.logits_NC), torch.from_numpy(fit.labels_N))
    return calibrator.probabilities(torch.from_numpy(test.logits_NC)).double()


def require_same_texts(a: Member, b: Member) -> None:
    """Refuse to compare two runs in pairs unless they are measured on the same texts.

    Raises:
        InputError: the dev sets differ; it names both runs.
    """
    one, other = filled([dev_set(a.run, a.test), dev_set(b.run, b.test)])
    if one != other:
        raise InputError(
            f"{a.run.path} and {b.run.path} have different dev sets: they cannot be compared in "
            "pairs.",
            "runs that are reported on the same texts with the same labels",
            "Compare runs of one task with the same data and the same task.split.",
        )


def comparable(
    members: list[Member], baseline: str | None
) -> tuple[dict[str, dict[int, Member]], list[LeftOut]]:
    """One run for each method and seed, all measured on the same texts."""
    sets = filled([dev_set(member.run, member.test) for member in members])
    with_baseline = [s for s, m in zip(sets, members, strict=True) if m.method == baseline]
    usual = Counter(with_baseline or sets).most_common(1)[0][0]
    left_out = []
    of_method: dict[str, dict[int, Member]] = {}
    reference = members[sets.index(usual)]
    for member, texts in zip(members, sets, strict=True):
        earlier = of_method.get(member.method, {}).get(member.seed)
        if texts != usual:
            why = (
                "Its dev set is not that of the task's other runs: no comparison in pairs. "
                + apart(texts, usual)
            )
            left_out.append(LeftOut(member.run.path, why))
        elif earlier is not None:
            same = "name" if member.is_table else "settings"
            why = f"{earlier.run.path} has the same {same} and the same seed."
            left_out.append(LeftOut(member.run.path, why))
        else:
            aligned = in_order_of(member, reference.test.ids)
            of_method.setdefault(member.method, {})[member.seed] = aligned
    order = sorted(of_method, key=lambda method: (method != baseline, method))
    return {method: dict(sorted(of_method[method].items())) for method in order}, left_out


def in_order_of(member: Member, ids: tuple[str, ...]) -> Member:
    """The same run with its texts in another order of the same ids."""
    if member.test.ids == ids:
        return member
    row_of = {one: row for row, one in enumerate(member.test.ids)}
    rows = np.asarray([row_of[one] for one in ids])
    test = member.test
    ordered = Predictions(
        ids,
        test.splits,
        test.labels_N[rows],
        test.logits_NC[rows],
        None if test.energy_N is None else test.energy_N[rows],
    )
    probs = {stage: probs_NC[rows] for stage, probs_NC in member.probs.items()}
    return Member(member.run, member.method, member.settings, ordered, probs)


# ------------------------------------------------------------------------------------- resamples


def resample(member: Member, resamples: int, seed: int) -> None:
    """Fill in every figure's value, and its value on each resample of the texts."""
    labels_N = torch.from_numpy(member.test.labels_N)
    named: dict[str, tuple[float, Sums]] = {}
    for stage, probs_NC in member.probs.items():
        truth_NC = _truth(member)
        for name, pair in _sums(probs_NC, labels_N, member.run.run.metrics, truth_NC).items():
            named[f"{stage}/{name}"] = pair
    sums = {name: each for name, (_, each) in named.items()}
    drawn = bootstrap(sums, len(labels_N), resamples=resamples, seed=seed)
    member.values.update({name: value for name, (value, _) in named.items()})
    member.resampled.update({name: drawn_R.numpy() for name, drawn_R in drawn.items()})


def _truth(member: Member) -> Tensor | None:
    """The exact P(y|x) of the reported texts, where it is known of each."""
    truth = member.run.truth
    if truth is None or truth.probs_NC.shape[1] != member.test.logits_NC.shape[1]:
        return None
    row_of = {one: row for row, one in enumerate(truth.ids)}
    if not set(member.test.ids) <= set(row_of):
        return None
    rows = [row_of[one] for one in member.test.ids]
    return torch.from_numpy(truth.probs_NC[rows])


def _sums(
    probs_NC: Tensor, labels_N: Tensor, metrics: Sequence[str], truth_NC: Tensor | None
) -> dict[str, tuple[float, Sums]]:
    """Each figure's value, and the same as sums over texts."""
    given = LabelledSet(probs_NC, labels_N, BINS)
    named: dict[str, tuple[float, Sums]] = {}
    for name in ("cls/acc", *(f"cls/{each}" for each in metrics), *FIGURES):
        estimate = named_estimate(name)
        value = estimate.value(probs_NC, labels_N, BINS)
        named[name] = float(value), estimate.sums(given)
    if truth_NC is not None:
        pairs = errors.true_pairs(probs_NC, truth_NC)
        true = errors.true_calibration_error(probs_NC, truth_NC, BINS)
        named["cal/true"] = float(true), gap_sums(pairs, len(probs_NC), BINS)
    return named
