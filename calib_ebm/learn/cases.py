"""What `evaluate` scores: a run or an ensemble of them, its texts, and the tables of sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calib_ebm.classifier import EnergyClassifier
from calib_ebm.learn.devices import device_of, set_threads
from calib_ebm.learn.evaluated import MeasuredSet, Say, Subject
from calib_ebm.learn.finished import FinishedRun, changed_since, open_run, own_task
from calib_ebm.learn.measure import Measured, Scored, predictions_of
from calib_ebm.learn.processes import place_of
from calib_ebm.learn.scoring import Scorer, require_dropout
from calib_ebm.learn.stress import StressSet, halved, other_sets
from calib_ebm.learn.tables import ensemble, ensemble_note, stored_run
from calib_ebm.report.records import Truth
from calib_ebm.text.task import TaskData

Config = Mapping[str, Any]

FIT = "texts to calibrate on"


@dataclass(frozen=True)
class Case:
    """A run, or an ensemble of them, with the texts to score."""

    runs: tuple[FinishedRun, ...]
    scorer: Scorer
    task: TaskData
    subject: Subject

    @property
    def scoring(self) -> str:
        """As in stress.csv."""
        parts = []
        if len(self.runs) > 1:
            parts.append(f"ensemble-{len(self.runs)}")
        if self.scorer.passes is not None:
            parts.append(f"mc_dropout-{self.scorer.passes}")
        return "+".join(parts) or "deterministic"

    def folder_name(self, stress: StressSet, calibrator: str) -> str:
        """Of a set's own folder."""
        name = "test" if stress.kind == "clean" else stress.name
        parts = [name, calibrator] + ([] if self.scoring == "deterministic" else [self.scoring])
        return "-".join(parts)


def case_and_others(
    paths: Sequence[Path], config: Config, say: Say
) -> tuple[Case, tuple[StressSet, ...]]:
    """What is evaluated, and the sets beside its own; these are of the same half of the texts."""
    case = _open(paths, config, say)
    others = other_sets(config, case.task, case.runs[0].config["task"])
    if any(each.corruption is not None for each in others):
        task = halved(case.task)
        case = replace(case, task=task)
        others = tuple(replace(e, examples=task.test) if e.same_texts else e for e in others)
    return case, others


def _open(paths: Sequence[Path], config: Config, say: Say) -> Case:
    """Load the runs' models and the first one's task; all must be of the same texts.

    Raises:
        InputError: for what is no finished run, or runs that do not belong together.
    """
    runs = tuple(open_run(path) for path in paths)
    members = tuple(EnergyClassifier.from_pretrained(run.path / "model") for run in runs)
    _prepare(members, config)
    first = runs[0]
    if len(runs) > 1:
        ensemble([stored_run(path) for path in paths], paths)
    task = own_task(first, config["data_dir"], members[0].labels)
    task = replace(task, notes=(*task.notes, *changed_since(first, task)))
    passes = config["mc_dropout"]
    if passes is not None:
        for classifier in members:
            require_dropout(classifier, passes)
    names = {classifier.energy_name for classifier in members}
    subject = Subject(
        task=task.name,
        labels=task.labels,
        metrics=task.metrics,
        energy=names.pop() if len(names) == 1 else "",
        seed=first.seed,
        config=first.config,
        notes=_how_scored(paths, passes, len(names) > 1),
    )
    return Case(runs, Scorer(members, passes, int(config["seed"]), say), task, subject)


def _prepare(members: Sequence[EnergyClassifier], config: Config) -> None:
    """Put the models where they shall compute."""
    place = place_of(os.environ)
    device = device_of(str(config["device"]), place)
    set_threads(config["threads"], device, place)
    for classifier in members:
        classifier.to(device)
        classifier.tokens_per_pass = config["tokens_per_pass"]


def _how_scored(paths: Sequence[Path], passes: int | None, mixed: bool) -> tuple[str, ...]:
    notes = []
    if len(paths) > 1:
        notes.append(ensemble_note(paths))
    if mixed:
        notes.append("Its runs have energies of different kinds, which have no common mean.")
    if passes is not None:
        notes.append(
            f"MC dropout: probabilities are the mean of {passes} passes with dropout on; energies "
            "are of a pass without."
        )
    return tuple(notes)


class Scores:
    """Tables of sets; the fit half is scored once."""

    def __init__(self, case: Case, say: Say) -> None:
        self.case, self.say = case, say
        fit, cut = case.scorer(case.task.fit, FIT)
        self.fit = self._told(fit)
        self.notes = _cut_note(cut, len(case.task.fit), "fit")

    def _told(self, scored: Scored) -> Scored:
        """Without energies where the members' are of different kinds."""
        return scored if self.case.subject.energy else Scored(scored.logits_NC, None)

    def of(self, stress: StressSet) -> MeasuredSet:
        """The table of a set, with the fit half that calibrates it."""
        case, task = self.case, self.case.task
        own = stress.kind == "clean"
        if own and task.folds is not None:
            scored, cut = self.fit, 0
        else:
            scored, cut = case.scorer(stress.examples, stress.name, stress.corruption)
            task = replace(task, test=stress.examples, folds=None)
        notes = (*self.notes, *_cut_note(cut, len(stress.examples), "test"))
        self.say(
            f"{stress.name}: {len(task.fit)} texts to calibrate on, {len(stress.examples)} to "
            "report on."
        )
        for note in (*stress.notes, *notes):
            self.say(f"note: {note}")
        measured = Measured(self.fit, self._told(scored), None)
        return MeasuredSet(
            table=predictions_of(task, measured),
            truth=_truth(task) if own else None,
            notes=(*case.task.notes, *stress.notes, *notes),
            digests={**task.digests, **dict(stress.digests)},
            examples=case.scorer.read(stress.examples, stress.corruption),
        )


def _cut_note(cut: int, texts: int, part: str) -> tuple[str, ...]:
    if not cut:
        return ()
    return (f"{cut} of {texts} texts of {part} were longer than the model takes and were cut.",)


def _truth(task: TaskData) -> Truth | None:
    if task.truth is None:
        return None
    probs = {e.id: task.truth.label_probs(e.text) for e in (*task.fit, *task.test)}
    return Truth(tuple(probs), np.asarray(list(probs.values())))
