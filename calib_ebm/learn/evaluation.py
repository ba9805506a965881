"""`evaluate`: a finished run measured again, several as an ensemble, or stored tables alone.

stored table  ->  figures                                           (`tables.py`)
run's model   ->  clean set and, where asked for, other sets        (`scoring.py`, `stress.py`)
either        ->  a folder each, like a run's                       (`evaluated.py`)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calib_ebm.classifier import EnergyClassifier
from calib_ebm.errors import InputError
from calib_ebm.learn.evaluated import (
    Evaluated,
    MeasuredSet,
    Say,
    Subject,
    evaluate_table,
    prepare_folder,
    write_evaluation,
)
from calib_ebm.learn.finished import (
    NEW,
    FinishedRun,
    changed_since,
    check_asked,
    find_paths,
    open_run,
    own_task,
)
from calib_ebm.learn.measure import Measured, Scored, check_calibration, predictions_of
from calib_ebm.learn.processes import place_of
from calib_ebm.learn.quiet import quieten
from calib_ebm.learn.scoring import Scorer, require_dropout
from calib_ebm.learn.stress import (
    StressSet,
    against_clean,
    clean_set,
    further_metrics,
    halved,
    home_of,
    other_sets,
    rows_of,
    told_apart,
)
from calib_ebm.learn.tables import (
    Source,
    ensemble,
    ensemble_note,
    read_source,
    stored_run,
    tables_in,
)
from calib_ebm.learn.team import ALONE, Team
from calib_ebm.report.files import CONFIG
from calib_ebm.report.records import Truth
from calib_ebm.report.stress import CSV as STRESS
from calib_ebm.report.stress import StressRow, read_stress, write_stress
from calib_ebm.text.task import TaskData

Config = Mapping[str, Any]


class Done(NamedTuple):
    """What was written."""

    folders: tuple[Path, ...]
    home: Path
    """The folder itself where there is one, else the one that holds them all."""
    stress: tuple[StressRow, ...] = ()
    """The rows of these folders in stress.csv."""


NOTHING = Done((), Path())
"""Of processes that only help."""


def evaluate(config: Config, say: Say) -> Done:
    """Measure what `table` or `run` names.

    Processes that torchrun or srun has started share the scoring; the first one writes, and only
    it returns folders.

    Args:
        config: resolved settings of `conf/evaluate.yaml`.
        say: takes lines for the person.

    Raises:
        InputError: for whatever a person has to put right.
    """
    quieten()
    check_asked(config)
    world = place_of(os.environ).world
    if world == 1:
        return _evaluate(config, say, ALONE)
    from calib_ebm.learn.meeting import as_launched, team_of

    with team_of(as_launched(world), say) as team:
        return _evaluate(config, say, team)


def _evaluate(config: Config, say: Say, team: Team) -> Done:
    if config["table"] is not None:
        return evaluate_tables(config, say) if team.first else NOTHING
    paths = find_paths(config["run"], "run", holding=CONFIG)
    if len(paths) > 1 and not any(config[name] is not None for name in NEW):
        if not team.first:
            return NOTHING
        source = ensemble([stored_run(path) for path in paths], paths)
        name = f"test-{config['calibrator']['name']}-ensemble-{len(paths)}"
        out = (
            paths[0] / "evaluations" / name
            if config["out"] is None
            else home_of(config["out"], paths[0])
        )
        say(f"The mean of {len(paths)} runs' stored probabilities; no model is loaded.")
        return Done((_write(out, source, config, say),), out)
    return evaluate_runs(paths, config, say, team)


# ---------------------------------------------------------------------------------------- tables


def evaluate_tables(config: Config, say: Say) -> Done:
    """Measure stored tables, each in a folder of its own.

    Raises:
        InputError: for settings that need a model, and what is wrong with a table.
    """
    asked = [name for name in (*NEW, "data_dir") if config[name] is not None]
    if asked:
        raise InputError(
            f"{', '.join(asked)} given with table=, which uses no model.",
            "run= for what has to be scored anew",
            "Give run= in place of table=.",
        )
    paths = [path for given in find_paths(config["table"], "table") for path in tables_in(given)]
    sources = [(path, read_source(path, config)) for path in paths]
    calibrator = str(config["calibrator"]["name"])
    out = None if config["out"] is None else Path(str(config["out"])).expanduser()
    folders: dict[Path, Source] = {}
    for path, source in sources:
        folder = _place(path, source, calibrator, out, several=len(sources) > 1)
        if folder in folders:
            raise InputError(
                f"Two tables would be written to {folder}.",
                "tables with names of their own",
                "Measure them one by one, each with its own out=...",
            )
        folders[folder] = source
    for folder, source in folders.items():
        _write(folder, source, config, say)
    single = len(folders) == 1
    home = next(iter(folders)) if single else out or Path(os.path.commonpath([*folders]))
    return Done(tuple(folders), home)


def _place(path: Path, source: Source, calibrator: str, out: Path | None, several: bool) -> Path:
    """The folder of one table's evaluation."""
    if out is not None:
        return out / source[0] if several else out
    if path.is_dir():
        return path / "evaluations" / f"table-{calibrator}"
    return Path("evaluations") / f"{source[0]}-{calibrator}"


def _write(out: Path, source: Source, config: Config, say: Say) -> Path:
    _, subject, measured = source
    for note in (*subject.notes, *measured.notes):
        say(f"note: {note}")
    evaluated = evaluate_table(subject, measured, config)
    write_evaluation(prepare_folder(out), subject, measured, evaluated, config)
    return out


# ------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class _Case:
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


def _case_and_others(paths: Sequence[Path], config: Config) -> tuple[_Case, tuple[StressSet, ...]]:
    """What is evaluated, and the sets beside its own; these are of the same half of the texts."""
    case = _open(paths, config)
    others = other_sets(config, case.task, case.runs[0].config["task"])
    if any(each.corruption is not None for each in others):
        task = halved(case.task)
        case = replace(case, task=task)
        others = tuple(replace(e, examples=task.test) if e.same_texts else e for e in others)
    return case, others


def evaluate_runs(paths: Sequence[Path], config: Config, say: Say, team: Team = ALONE) -> Done:
    """Score the run's fit half, its clean set and the other sets, with the model or the models.

    The processes of a team score together, and the first of them writes.

    Raises:
        InputError: when there is no model, or for whatever is wrong with the data.
    """
    case, others = _case_and_others(paths, config)
    for note in (*case.subject.notes, *case.task.notes):
        say(f"note: {note}")
    calibrator, home = str(config["calibrator"]["name"]), home_of(config["out"], paths[0])
    check_calibration(config["calibrator"], case.task)
    clean = clean_set(case.task)
    alone = config["out"] is not None and len(others) < 2
    written = others if alone and others else (clean, *others)
    places = {
        each.name: home if alone else home / case.folder_name(each, calibrator) for each in written
    }
    if not team.first:
        scores = _Scores(case, say)
        for each in (clean, *others):
            scores.of(each)
        return NOTHING
    if others and (home / STRESS).is_file():
        read_stress(home)  # one that is broken is said now, not after the work
    for place in places.values():
        prepare_folder(place)
    scores = _Scores(case, say)
    reference = scores.of(clean)
    baseline = evaluate_table(case.subject, reference, config)
    rows: list[StressRow] = []
    for each in (clean, *others):
        measured, evaluated = reference, baseline
        if each is not clean:
            measured = scores.of(each)
            measured, evaluated = _against(case, each, measured, baseline, config)
        if each.name in places:
            write_evaluation(places[each.name], case.subject, measured, evaluated, config)
        folder = str(places[each.name].relative_to(home)) if each.name in places else ""
        rows += rows_of(each, folder, case.scoring, calibrator, evaluated.table, evaluated.metrics)
        if others:
            write_stress(home, rows)  # after each set, so that who stops it keeps what was done
    single = len(places) == 1
    folders = tuple(places.values())
    return Done(folders, folders[0] if single else home, tuple(rows) if others else ())


def _open(paths: Sequence[Path], config: Config) -> _Case:
    """Load the runs' models and the first one's task; all must be of the same texts.

    Raises:
        InputError: for what is no finished run, or runs that do not belong together.
    """
    runs = tuple(open_run(path) for path in paths)
    members = tuple(EnergyClassifier.from_pretrained(run.path / "model") for run in runs)
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
    return _Case(runs, Scorer(members, passes, int(config["seed"])), task, subject)


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


class _Scores:
    """Tables of sets; the fit half is scored once."""

    def __init__(self, case: _Case, say: Say) -> None:
        self.case, self.say = case, say
        fit, cut = case.scorer(case.task.fit)
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
            scored, cut = case.scorer(stress.examples, stress.corruption)
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


def _against(
    case: _Case, stress: StressSet, measured: MeasuredSet, clean: Evaluated, config: Config
) -> tuple[MeasuredSet, Evaluated]:
    """A set's figures with its differences from the clean set."""
    seed = case.subject.seed
    evaluated = evaluate_table(case.subject, measured, config)
    differences = against_clean(
        clean, evaluated, case.subject.metrics, paired=stress.same_texts, seed=seed
    )
    apart, note = told_apart(clean, evaluated, seed) if stress.kind == "ood" else ({}, "")
    further = further_metrics(differences, apart)
    measured = replace(
        measured, further=further, notes=(*measured.notes, *((note,) if note else ()))
    )
    return measured, replace(evaluated, metrics={**evaluated.metrics, **further})
