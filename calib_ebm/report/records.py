"""What the small files of a run folder hold, as records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.calibrators import calibrator_from_state
from calib_ebm.calibration.temperature import NoCalibration, Temperature
from calib_ebm.errors import InputError
from calib_ebm.report.columns import Floats, broken


@dataclass(frozen=True)
class Stage:
    """One stage of a run: what it cost."""

    seconds: float
    peak_memory_mb: float
    skipped: bool
    """What it makes was already there."""


@dataclass(frozen=True)
class RunRecord:
    """run.json."""

    task: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    """The task's own, of "acc", "mcc" and "f1"."""
    energy: str
    noise: str | None
    seed: int
    temperature: float
    """Fitted on the fit half; 1 where none was fitted."""
    calibrator: Calibrator = field(default_factory=NoCalibration)
    """As it was fitted on the fit half."""
    command: str = ""
    status: str = ""
    git_commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    data_digests: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Stage] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    noise_lm: Mapping[str, Any] | None = None
    bank: Mapping[str, Any] | None = None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], path: Path) -> RunRecord:
        """Read the mapping of run.json.

        Raises:
            InputError: a needed name is missing or holds another kind of value.
        """
        try:
            record = cls._from_plain(plain)
        except KeyError as error:
            raise broken(path, f"it has no {error.args[0]!r}") from error
        except InputError as error:
            raise broken(path, f"its calibrator is none: {error.given}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise broken(path, f"a value is of the wrong kind ({error})") from error
        if not record.labels:
            raise broken(path, "it names no classes")
        if not (math.isfinite(record.temperature) and record.temperature > 0):
            raise broken(path, f"its temperature is {record.temperature}, not a positive number")
        return record

    @classmethod
    def _from_plain(cls, plain: Mapping[str, Any]) -> RunRecord:
        temperature = plain.get("temperature")
        return cls(
            task=str(plain["task"]),
            labels=tuple(str(label) for label in plain["labels"]),
            metrics=tuple(str(name) for name in plain.get("metrics") or ("acc",)),
            energy=str(plain["energy"]),
            noise=None if plain.get("noise") is None else str(plain["noise"]),
            seed=int(plain["seed"]),
            # A run that was stopped early has fitted none yet.
            temperature=1.0 if temperature is None else float(temperature),
            calibrator=_calibrator(plain, len(plain["labels"])),
            command=str(plain.get("command") or ""),
            status=str(plain.get("status") or ""),
            git_commit=plain.get("git_commit"),
            versions=dict(plain.get("versions") or {}),
            data_digests=dict(plain.get("data_digests") or {}),
            stages={
                str(name): Stage(
                    seconds=_number(stage.get("seconds")),
                    peak_memory_mb=_number(stage.get("peak_memory_mb")),
                    skipped=bool(stage.get("skipped", False)),
                )
                for name, stage in (plain.get("stages") or {}).items()
            },
            notes=tuple(str(note) for note in plain.get("notes") or ()),
            noise_lm=plain.get("noise_lm"),
            bank=plain.get("bank"),
        )


@dataclass(frozen=True)
class NoiseSample:
    """A held-out noise text, beside the text that its prefix came from."""

    source: str
    masked: str | None
    """The prefix; None for noise that has none (unconditional)."""
    noise: str
    energy: float | None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> NoiseSample:
        """Read a line of noise_samples.jsonl."""
        masked, energy = plain.get("masked"), plain.get("energy")
        return cls(
            source=str(plain["source"]),
            masked=None if masked is None else str(masked),
            noise=str(plain["noise"]),
            energy=None if energy is None else float(energy),
        )


@dataclass(frozen=True)
class Energies:
    """Energies of held-out texts and held-out noise; true ones where the language is known.

    A true energy may be infinite: noise that the language cannot produce.
    """

    data_N: Floats
    noise_N: Floats
    true_data_N: Floats | None
    true_noise_N: Floats | None


@dataclass(frozen=True)
class Truth:
    """Exact P(y|x) of texts, known on the embedded task only."""

    ids: tuple[str, ...]
    probs_NC: Floats


def _calibrator(plain: Mapping[str, Any], classes: int) -> Calibrator:
    """The calibrator of run.json; earlier runs wrote a temperature only."""
    state = plain.get("calibrator")
    if state is None:
        temperature = plain.get("temperature")
        if temperature is None:
            return NoCalibration()
        return Temperature.from_state(
            {"name": "temperature", "temperature": temperature, "lower": 1e-9, "upper": 1e9}
        )
    calibrator = calibrator_from_state(dict(state))
    calibrator.probabilities(torch.zeros(1, classes))
    return calibrator


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
