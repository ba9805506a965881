"""`evaluate`: a finished run measured again, several as an ensemble, or stored tables alone.

stored table  ->  figures                                           (`tables.py`)
run's model   ->  clean set and, where asked for, other sets        (`cases.py`, `stress.py`)
either        ->  a folder each, like a run's                       (`evaluated.py`)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from calib_ebm.errors import InputError
from calib_ebm.learn.cases import Case, Scores, case_and_others
from calib_ebm.learn.evaluated import (
    Evaluated,
    MeasuredSet,
    Say,
    evaluate_table,
    prepare_folder,
    write_evaluation,
)
from calib_ebm.learn.finished import (
    NEW,
    check_asked,
    find_paths,
)
from calib_ebm.learn.measure import check_calibration
from calib_ebm.learn.processes import place_of
from calib_ebm.learn.quiet import quieten
from calib_ebm.learn.stress import (
    StressSet,
    against_clean,
    clean_set,
    further_metrics,
    home_of,
    rows_of,
    told_apart,
)
from calib_ebm.learn.tables import (
    Source,
    ensemble,
    read_source,
    stored_run,
    tables_in,
)
from calib_ebm.learn.team import ALONE, Team
from calib_ebm.report.files import CONFIG
from calib_ebm.report.stress import CSV as STRESS
from calib_ebm.report.stress import StressRow, read_stress, write_stress

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

    quieten()  # again: Lightning is imported now
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
    needing = (*NEW, "data_dir", "threads", "tokens_per_pass")
    asked = [name for name in needing if config[name] is not None]
    asked += ["device"] * (config["device"] != "auto")
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


def evaluate_runs(paths: Sequence[Path], config: Config, say: Say, team: Team = ALONE) -> Done:
    """Score the run's fit half, its clean set and the other sets, with the model or the models.

    The processes of a team score together, and the first of them writes.

    Raises:
        InputError: when there is no model, or for whatever is wrong with the data.
    """
    case, others = case_and_others(paths, config, say)
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
        scores = Scores(case, say)
        for each in (clean, *others):
            scores.of(each)
        return NOTHING
    if others and (home / STRESS).is_file():
        read_stress(home)  # one that is broken is said now, not after the work
    for place in places.values():
        prepare_folder(place)
    scores = Scores(case, say)
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


def _against(
    case: Case, stress: StressSet, measured: MeasuredSet, clean: Evaluated, config: Config
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
