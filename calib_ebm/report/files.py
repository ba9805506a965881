"""The files of a run folder: one writer and one reader each.

Everything reported is computed from these files, so that a page or a figure can be made again
without the model. Nothing read here is executed: YAML is read safely, the rest is Parquet, JSON
and CSV.

A file that is missing or broken raises `InputError` with its name.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from calib_ebm.durable import write_json, write_text
from calib_ebm.errors import InputError
from calib_ebm.names import (
    CONFIG,
    ENERGIES,
    HISTORY,
    METRICS,
    NOISE_SAMPLES,
    REPORT,
    RUN,
    TRUTH,
)
from calib_ebm.report.columns import (
    Floats,
    Numbers,
    broken,
    read_columns,
    to_floats,
    to_matrix,
    write_columns,
)
from calib_ebm.report.predictions import FILE as PREDICTIONS
from calib_ebm.report.predictions import Predictions, read_predictions, write_predictions
from calib_ebm.report.records import Energies, NoiseSample, RunRecord, Stage, Truth
from calib_ebm.report.texts import read_texts

__all__ = [
    "CONFIG",
    "ENERGIES",
    "HISTORY",
    "METRICS",
    "NOISE_SAMPLES",
    "PREDICTIONS",
    "REPORT",
    "RUN",
    "TRUTH",
    "Energies",
    "History",
    "NoiseSample",
    "Predictions",
    "RunFolder",
    "RunRecord",
    "Stage",
    "Truth",
    "read_energies",
    "read_history",
    "read_metrics",
    "read_noise_samples",
    "read_predictions",
    "read_run",
    "read_truth",
    "write_energies",
    "write_json",
    "write_metrics",
    "write_noise_samples",
    "write_predictions",
    "write_text",
    "write_truth",
]

History = dict[str, Floats]
"""Column name to its values, one per logged row; NaN where nothing was logged."""


@dataclass(frozen=True)
class RunFolder:
    """A finished run, as its files tell it. None, or empty: the run has no such file.

    A stored table of predictions takes the same shape where tables and runs are compared.
    """

    path: Path
    config: dict[str, Any]
    run: RunRecord
    metrics: dict[str, float]
    predictions: Predictions
    history: History
    energies: Energies | None
    noise_samples: tuple[NoiseSample, ...]
    truth: Truth | None
    texts: Mapping[str, str] = field(default_factory=dict)
    """Id to text, of the reported half."""
    method: str | None = None
    """Of a stored table, which has no settings that could name it; None of a run."""


def read_run(folder: Path | str) -> RunFolder:
    """Read a finished run.

    Raises:
        InputError: `folder` is no run folder, the run has not finished, or a file is broken.
    """
    path = Path(folder)
    for needed in (CONFIG, RUN):
        if not (path / needed).is_file():
            raise _no_run_folder(path, needed)
    plain = _mapping(path / RUN, _json(path / RUN))
    for needed in (METRICS, PREDICTIONS):
        if not (path / needed).is_file():
            raise _unfinished(path, needed, plain.get("command"))
    run = RunRecord.from_plain(plain, path / RUN)
    predictions = read_predictions(path)
    predictions.check(path / PREDICTIONS, classes=len(run.labels))
    return RunFolder(
        path=path,
        config=_config(path / CONFIG),
        run=run,
        metrics=read_metrics(path),
        predictions=predictions,
        history=read_history(path) if (path / HISTORY).is_file() else {},
        energies=read_energies(path) if (path / ENERGIES).is_file() else None,
        noise_samples=read_noise_samples(path) if (path / NOISE_SAMPLES).is_file() else (),
        truth=read_truth(path) if (path / TRUTH).is_file() else None,
        texts=read_texts(path),
    )


# ----------------------------------------------------------------------- energies, noise, truth


def write_energies(
    folder: Path,
    data_N: Numbers,
    noise_N: Numbers,
    true_data_N: Numbers | None = None,
    true_noise_N: Numbers | None = None,
) -> None:
    """Write energies.parquet: held-out texts against held-out noise, with true ones where known."""
    energy_by_kind = {"data": to_floats(data_N), "noise": to_floats(noise_N)}
    kinds = [kind for kind, energy in energy_by_kind.items() for _ in range(len(energy))]
    true: Sequence[float | None] | Floats = [None] * len(kinds)
    if true_data_N is not None and true_noise_N is not None:
        true = np.concatenate([to_floats(true_data_N), to_floats(true_noise_N)])
    energy = np.concatenate(list(energy_by_kind.values()))
    write_columns(folder / ENERGIES, {"kind": kinds, "energy": energy, "true_energy": true})


def read_energies(folder: Path) -> Energies:
    """Read energies.parquet."""
    path = folder / ENERGIES
    columns = read_columns(path, ("kind",), optional=("energy", "true_energy"))
    if set(columns["kind"]) - {"data", "noise"}:
        raise broken(path, "its column 'kind' holds something other than 'data' and 'noise'")
    is_data = np.asarray([kind == "data" for kind in columns["kind"]], dtype=bool)
    energy, true = _with_gaps(columns["energy"]), _with_gaps(columns["true_energy"])
    known = bool((~np.isnan(true)).any())
    return Energies(
        data_N=energy[is_data],
        noise_N=energy[~is_data],
        true_data_N=true[is_data] if known else None,
        true_noise_N=true[~is_data] if known else None,
    )


def write_noise_samples(folder: Path, samples: Sequence[NoiseSample]) -> None:
    """Write noise_samples.jsonl, a sample a line."""
    lines = [
        json.dumps(
            {
                "source": sample.source,
                "masked": sample.masked,
                "noise": sample.noise,
                "energy": _finite_or_none(sample.energy),
            },
            ensure_ascii=False,
        )
        for sample in samples
    ]
    write_text(folder / NOISE_SAMPLES, "".join(line + "\n" for line in lines))


def read_noise_samples(folder: Path) -> tuple[NoiseSample, ...]:
    """Read noise_samples.jsonl."""
    path = folder / NOISE_SAMPLES
    try:
        # Only "\n" ends a record: a text may hold U+2028 and its like, at which splitlines cuts.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        return tuple(NoiseSample.from_plain(json.loads(line)) for line in lines)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(path, f"a line is no noise sample ({error})") from error


def write_truth(folder: Path, ids: Sequence[str], probs_NC: Numbers) -> None:
    """Write truth.parquet: the exact P(y|x) of each text (the embedded task knows it)."""
    write_columns(folder / TRUTH, {"id": tuple(ids), "probs": to_floats(probs_NC)})


def read_truth(folder: Path) -> Truth:
    """Read truth.parquet."""
    path = folder / TRUTH
    columns = read_columns(path, ("id", "probs"))
    return Truth(ids=tuple(columns["id"]), probs_NC=to_matrix(columns["probs"], path))


# ----------------------------------------------------------------------------- metrics, history


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics.json: flat names, plain numbers; null for one that is not finite."""
    write_json(folder / METRICS, {name: float(metrics[name]) for name in sorted(metrics)})


def read_metrics(folder: Path) -> dict[str, float]:
    """Read metrics.json; what is null there is NaN here."""
    path = folder / METRICS
    metrics: dict[str, float] = {}
    for name, value in _mapping(path, _json(path)).items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise broken(path, f"{name} is {value!r}, which is no number")
        metrics[name] = math.nan if value is None else float(value)
    return metrics


def read_history(folder: Path) -> History:
    """Read history.csv as columns; an empty cell is NaN."""
    path = folder / HISTORY
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        if not rows:
            return {}
        header, body = rows[0], rows[1:]
        if body and len(body[-1]) < len(header):
            body.pop()  # The row that was being written when the run was stopped.
        if any(len(row) != len(header) for row in body):
            raise ValueError("its rows are not all as long as its header")
        cells = [[float(cell) if cell.strip() else math.nan for cell in row] for row in body]
    except (OSError, ValueError, csv.Error) as error:
        raise broken(path, str(error)) from error
    columns = np.asarray(cells, dtype=np.float64).reshape(len(body), len(header))
    return {name: columns[:, index] for index, name in enumerate(header)}


# --------------------------------------------------------------------------------------- helpers


def _config(path: Path) -> dict[str, Any]:
    try:
        return _mapping(path, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise broken(path, "it is not plain YAML") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise broken(path, f"it is not JSON ({error})") from error


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise broken(path, "it does not hold names with values")
    return {str(name): item for name, item in value.items()}


def _with_gaps(values: Sequence[float | None]) -> Floats:
    return np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)


def _finite_or_none(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _no_run_folder(path: Path, missing: str) -> InputError:
    return InputError(
        f"{path} is no run folder: it has no {missing}.",
        f"a folder with {CONFIG}, {RUN}, {METRICS} and {PREDICTIONS}, as `train` writes it",
        "Give the path that `train` printed last.",
    )


def _unfinished(path: Path, missing: str, command: object) -> InputError:
    again = f": {command}" if command else "."
    return InputError(
        f"{path} has no {missing}: its run has not finished.",
        "the folder of a finished run",
        f"Type the same command again, it goes on where it stopped{again}",
    )
