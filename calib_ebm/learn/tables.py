"""Measuring stored tables, without any model: of runs, of ensembles, and from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calib_ebm.errors import InputError
from calib_ebm.learn.evaluated import EVALUATION, MeasuredSet, Subject
from calib_ebm.learn.finished import is_run, listed
from calib_ebm.learn.measure import Measured, Scored, energy_metrics, true_energy_metrics
from calib_ebm.learn.scoring import combined
from calib_ebm.report.cut import cut_by_ids
from calib_ebm.report.files import PREDICTIONS, RunFolder, read_run
from calib_ebm.report.foreign import ForeignTable, TableColumns, read_foreign
from calib_ebm.report.predictions import Predictions
from calib_ebm.report.reader import ENDINGS

Config = Mapping[str, Any]
Source = tuple[str, Subject, MeasuredSet]
"""A name for the folder, and what is to be measured."""


def read_source(path: Path, config: Config) -> Source:
    """A run folder, or a file with a table of predictions.

    Raises:
        InputError: when it is neither, or is broken.
    """
    if path.is_dir() and is_run(path):
        _refuse_columns(config, path)
        return stored_run(path)
    return _from_anywhere(path / PREDICTIONS if path.is_dir() else path, config)


def tables_in(path: Path) -> tuple[Path, ...]:
    """The tables that a path stands for: itself, or those directly within a folder of tables.

    Raises:
        InputError: when there is none.
    """
    if path.is_file() or (path / PREDICTIONS).is_file() or (path.is_dir() and is_run(path)):
        return (path,)
    if path.is_dir():
        within = sorted(path.iterdir())
        found = [p for p in within if (p / PREDICTIONS).is_file()]
        found += [p for p in within if p.is_file() and p.suffix.lower() in ENDINGS]
        if found:
            return tuple(found)
    there = "holds no table" if path.is_dir() else "is not there"
    raise InputError(
        f"table={path} {there}.",
        f"a run folder, a folder of such or of tables, or a file: {', '.join(ENDINGS)}",
        f"Correct the path (it is taken from the folder {Path.cwd()}).",
    )


# ------------------------------------------------------------------------------------------ runs


def stored_run(path: Path) -> Source:
    """What a finished run, or an evaluation of one, has stored.

    Raises:
        InputError: see `read_run`.
    """
    run = read_run(path)
    record = run.run
    subject = Subject(
        task=record.task,
        labels=record.labels,
        metrics=record.metrics,
        energy=record.energy,
        seed=record.seed,
        config={key: value for key, value in run.config.items() if key != EVALUATION},
    )
    measured = MeasuredSet(
        table=run.predictions,
        truth=run.truth,
        energies=run.energies,
        digests=record.data_digests,
        further=_stored_energies(run),
        notes=("Recomputed from the stored table, without the model.",),
    )
    return path.resolve().name, subject, measured


def _stored_energies(run: RunFolder) -> dict[str, float]:
    """What a run says of its noise, from the energies it stored."""
    if run.energies is None or run.predictions.energy_N is None:
        return {}
    nothing_NC = torch.zeros(0, len(run.run.labels))
    scored = [
        Scored(nothing_NC, torch.from_numpy(e)) for e in (run.energies.data_N, run.energies.noise_N)
    ]
    stored = Measured(Scored(nothing_NC, None), *scored)
    noise = run.config.get("noise")
    per_text = noise.get("per_text", 1) if isinstance(noise, Mapping) else 1
    true = (run.energies.true_data_N, run.energies.true_noise_N)
    both = None if true[0] is None or true[1] is None else (true[0], true[1])
    return energy_metrics(stored, int(per_text)) | true_energy_metrics(stored, both)


def ensemble(sources: Sequence[Source], paths: Sequence[Path]) -> Source:
    """The mean of the probabilities that several runs have stored for the same texts.

    Raises:
        InputError: where tasks, classes, texts or labels differ, naming the run that does.
    """
    (_, first, found), first_path = sources[0], paths[0]
    for (_, subject, measured), path in zip(sources[1:], paths[1:], strict=True):
        if (subject.task, subject.labels) != (first.task, first.labels):
            raise _differ(
                f"{path} is a run of {subject.task} ({', '.join(subject.labels)}), and "
                f"{first_path} one of {first.task} ({', '.join(first.labels)})."
            )
        require_same_texts(found.table, measured.table, first_path, path)
    tables = [measured.table for _, _, measured in sources]
    scored = [
        Scored(
            torch.from_numpy(table.logits_NC),
            None if table.energy_N is None else torch.from_numpy(table.energy_N),
        )
        for table in tables
    ]
    same_energy = len({subject.energy for _, subject, _ in sources}) == 1
    mean = combined(scored)
    energy_N = mean.energy_N if same_energy else None
    table = replace(
        found.table,
        logits_NC=mean.logits_NC.numpy(),
        energy_N=None if energy_N is None else energy_N.numpy(),
    )
    subject = replace(first, energy=first.energy if same_energy else "")
    notes = (ensemble_note(paths),)
    return "ensemble", subject, MeasuredSet(table, found.truth, notes=notes, digests=found.digests)


def ensemble_note(paths: Sequence[Path]) -> str:
    """What an ensemble's folder says of its members."""
    names = ", ".join(str(path) for path in paths)
    return f"An ensemble: the mean of the probabilities of {len(paths)} runs ({names})."


def require_same_texts(
    table: Predictions, other: Predictions, path: Path, other_path: Path
) -> None:
    """Raise `InputError` unless two runs predicted the same texts, cut the same way."""
    if table.ids != other.ids:
        alone = sorted({*table.ids} ^ {*other.ids})
        what = f"{alone[0]!r} is in only one of them" if alone else "they stand in another order"
        raise _differ(
            f"{path} and {other_path} have predicted different texts ({len(table.ids)} and "
            f"{len(other.ids)}; {what})."
        )
    if table.splits != other.splits or not _same(table.folds_N, other.folds_N):
        raise _differ(f"{path} and {other_path} are cut into fit and test differently.")
    apart = np.flatnonzero(table.labels_N != other.labels_N)
    if len(apart):
        raise _differ(
            f"{path} and {other_path} have different labels for {table.ids[apart[0]]!r}: "
            f"{table.labels_N[apart[0]]} and {other.labels_N[apart[0]]}."
        )


def _same(folds: Any, others: Any) -> bool:
    if folds is None or others is None:
        return folds is None and others is None
    return bool(np.array_equal(folds, others))


def _differ(given: str) -> InputError:
    return InputError(
        given,
        "runs of one task, with the same classes, dev set and task.split",
        "Give runs that differ in their seed or method only.",
    )


# ------------------------------------------------------------------------------------- elsewhere


def _from_anywhere(path: Path, config: Config) -> Source:
    columns = TableColumns(
        probs=listed(config["probs"]),
        logits=listed(config["logits"]),
        id=config["id"],
        label=config["label"],
        split=config["split"],
        energy=config["energy"],
    )
    found = read_foreign(path, columns, listed(config["labels"]))
    table, note = _cut(found, config, path)
    subject = Subject(
        task=path.parent.resolve().name if path.name == PREDICTIONS else path.stem,
        labels=found.labels,
        metrics=("acc",),
        energy="" if table.energy_N is None else "stored",
        seed=int(config["seed"]),
        config={},
    )
    return subject.task, subject, MeasuredSet(table, notes=(*found.notes, *note))


def _cut(found: ForeignTable, config: Config, path: Path) -> tuple[Predictions, tuple[str, ...]]:
    """The table in two halves or in folds by the hashes of its ids, unless it is cut already."""
    table, folds = found.table, config["folds"]
    if found.is_cut or folds is not None:
        return cut_by_ids(found, folds, path)
    if str(config["calibrator"]["name"]) == "none":
        return table, ()
    if not table.labelled:
        raise InputError(
            f"{path} has no labels, so no calibrator can be fitted on it.",
            "labels, or no calibrator",
            "Set calibrator=none.",
        )
    if len(table.ids) < 2:
        raise InputError(
            f"{path} has {len(table.ids)} row, which cannot be cut in two.",
            "at least two rows, hundreds to mean anything",
            "Set calibrator=none.",
        )
    return cut_by_ids(found, None, path)


def _refuse_columns(config: Config, path: Path) -> None:
    names = ("probs", "logits", "labels", "id", "split", "energy", "folds")
    given = [name for name in names if config[name] is not None]
    if given:
        raise InputError(
            f"{', '.join(given)} given for {path}, which is a run folder.",
            "these settings for a table from elsewhere: a run's table has its own columns",
            f"Leave them out, or give the file: table={path / PREDICTIONS}.",
        )
