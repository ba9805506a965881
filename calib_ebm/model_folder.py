"""The files that lie beside a saved classifier, and how what was folded into it is taken out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.calibrators import calibrator_from_state
from calib_ebm.energy.fold import Head
from calib_ebm.energy.heads import ENERGIES, Energy, build_energy
from calib_ebm.errors import InputError

HEAD = "energy_head.safetensors"
UNCALIBRATED = "uncalibrated_head.safetensors"
"""The last layer as it was trained, where a calibrator was folded into it."""


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Put a file in place whole."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def as_tensors(head: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """The parts that there are, as safetensors takes them."""
    return {name: tensor.contiguous() for name, tensor in head.items() if tensor is not None}


class Facts(NamedTuple):
    """calib_ebm.json."""

    energy: str
    labels: tuple[str, ...]
    max_length: int
    folded_into: str | None
    calibrator: Calibrator


def read_facts(path: Path) -> Facts:
    """The small file beside the model.

    Raises:
        InputError: when it is broken.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        folded_into = plain.get("folded_into")
        facts = Facts(
            str(plain["energy"]),
            tuple(str(label) for label in plain["labels"]),
            int(plain["max_length"]),
            None if folded_into is None else str(folded_into),
            calibrator_from_state(_calibrator_state(plain)),
        )
        if facts.energy not in {"none", *ENERGIES}:
            raise ValueError(f"there is no energy {facts.energy!r}")
        # A calibrator of other classes is found out here, not at the first text.
        facts.calibrator.probabilities(torch.zeros(1, len(facts.labels)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        given = error.given if isinstance(error, InputError) else error
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {given}).",
            "the file as this package writes it: energy, calibrator, labels, max_length",
            "Copy the model folder again, or train again.",
        ) from error
    return facts


def _calibrator_state(plain: Mapping[str, Any]) -> Mapping[str, object]:
    """The calibrator of the facts; runs of 0.1.0's first weeks hold no more than a temperature."""
    if "calibrator" in plain:
        return dict(plain["calibrator"])
    temperature = float(plain["temperature"])
    return {"name": "temperature", "temperature": temperature, "lower": 1e-6, "upper": 1e6}


def unfold(classifier: nn.Module, facts: Facts, folder: Path) -> None:
    """Give the classifier its last layer back as it was trained.

    Raises:
        InputError: when that is missing, or the weights are no longer those that it belongs to.
    """
    path = folder / UNCALIBRATED
    try:
        kept = load_file(path)
        own = Head(kept["weight_CH"], kept.get("bias_C"))
        layer = classifier.get_submodule(str(facts.folded_into))
        affine = facts.calibrator.affine(len(facts.labels))
        if not isinstance(layer, nn.Linear) or affine is None:
            raise ValueError(f"{facts.folded_into} is no layer that it could be folded into")
        there, folded = Head.of(layer), own.mapped(*affine)
        # The second: the folder was stopped on before its weights were written.
        if not any(head is not None and there.near(head) for head in (folded, own)):
            raise ValueError("the weights were changed after the calibrator was folded in")
    # A missing file, half a file, a name that is none: all the same to the person.
    except Exception as error:
        raise InputError(
            f"The calibrator in {folder} cannot be taken out of the classifier "
            f"({(str(error).splitlines() or [''])[0]}).",
            f"the weights and {UNCALIBRATED} as they were saved together",
            "Copy the whole folder again; a classifier that was trained further with other tools "
            "is to be loaded with transformers' Auto classes.",
        ) from error
    own.put_into(layer)


def load_energy(folder: Path, name: str, classifier: Any) -> Energy | None:
    """The energy of that name, with its head's weights where it has one.

    Raises:
        InputError: when these are missing or broken.
    """
    energy = build_energy(name, classifier.config.hidden_size)
    if energy is not None and any(True for _ in energy.parameters()):
        if not (folder / HEAD).is_file():
            raise InputError(
                f"{folder} holds a classifier with energy={name}, but no {HEAD}.",
                "a model folder with all its files",
                "Copy the whole folder.",
            )
        try:
            energy.load_state_dict(load_file(folder / HEAD))
        # Half a file, or another model's head: errors of every kind, all the same to the person.
        except Exception as error:
            raise InputError(
                f"{folder / HEAD} cannot be read ({(str(error).splitlines() or [''])[0]}).",
                "the head as it was saved with this model",
                "Copy the whole folder again.",
            ) from error
    return energy
