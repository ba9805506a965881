"""Finished models to score new texts with: found, told apart, and asked as one.

Several are an ensemble: the mean of their probabilities, each calibrated as its own run calibrated
it, and the mean of their energies where all have one and of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from calib_ebm.classifier import FACTS, EnergyClassifier
from calib_ebm.errors import InputError
from calib_ebm.learn.finished import find_paths
from calib_ebm.learn.folder import read_config
from calib_ebm.model_folder import Facts, read_facts
from calib_ebm.report.columns import Floats
from calib_ebm.report.files import CONFIG
from calib_ebm.report.parts import digest_of_file, key_of
from calib_ebm.shapes import Example
from calib_ebm.text.glue import GLUE, glue_task
from calib_ebm.windows import WindowScorer

USUAL_TEXT = ("text", "sentence")
"""Columns that are taken for the texts where a run does not say what its own were called."""


@dataclass(frozen=True)
class Model:
    """A model folder, and the task of the run that it lies in.

    Attributes:
        task: settings of that task; empty where the folder lies in no run.
    """

    folder: Path
    task: Mapping[str, Any]

    def facts(self) -> Facts:
        """Labels, energy, calibrator."""
        return read_facts(self.folder / FACTS)

    def digest(self) -> str:
        """Of all its files, by their names and every byte."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return key_of({str(p.relative_to(self.folder)): digest_of_file(p) for p in files})

    def columns(self) -> list[tuple[str, str | None]]:
        """What the texts, or pairs, of its task are called in files, the likeliest first."""
        if self.task.get("text"):
            return [(str(self.task["text"]), self.task.get("text_pair"))]
        if self.task.get("source") == "glue" and self.task.get("name") in GLUE:
            task = glue_task(str(self.task["name"]))
            return [(task.text, task.text_pair), (task.hub_text, task.hub_text_pair)]
        return [(name, None) for name in USUAL_TEXT]


def find_models(given: Any) -> tuple[Model, ...]:
    """The models that `run=` names: run folders, model folders, or a pattern of run folders.

    Raises:
        InputError: for what holds no model, and for models of different classes.
    """
    models = tuple(_model_in(path) for path in find_paths(given, "run", f"model/{FACTS}"))
    if not models:
        raise InputError(
            "run= names nothing.", "the folder of a finished run", "Add e.g. run=runs/..."
        )
    first, *others = (model.facts().labels for model in models)
    for model, labels in zip(models[1:], others, strict=True):
        if labels != first:
            raise InputError(
                f"{models[0].folder} has the classes {', '.join(first)}, and {model.folder} "
                f"{', '.join(labels)}.",
                "models of the same classes in the same order",
                "Leave one of them out.",
            )
    return models


def _model_in(path: Path) -> Model:
    folder, run = path / "model", path
    if (path / FACTS).is_file():
        folder, run = path, path.parent
    if not (folder / FACTS).is_file():
        why = "there is no such folder" if not path.exists() else f"it has no model/{FACTS}"
        raise InputError(
            f"run={path} holds no model: {why}.",
            "the folder of a finished run, or the folder model in it",
            "Give the path that train printed last, or let that run finish.",
        )
    task: Any = {}
    if (run / CONFIG).is_file():
        task = read_config(run / CONFIG).get("task")
    return Model(folder, task if isinstance(task, dict) else {})


class Scores(NamedTuple):
    """What the models say of B texts, in their order."""

    probs_BC: Floats
    energy_B: Floats | None
    cut: int
    """Texts that were too long for a model, and lost their ends."""


class Ensemble:
    """One model, or several as one.

    Args:
        models: of the same classes.
        device: to compute on, as torch names it.
        tokens: of a pass; None: as the device likes it.
        bf16: whether matrices are multiplied in bfloat16.
    """

    def __init__(
        self, models: Sequence[Model], device: torch.device, tokens: int | None, *, bf16: bool
    ) -> None:
        self.members = [EnergyClassifier.from_pretrained(model.folder) for model in models]
        for member in self.members:
            member.to(device)
        self.scorers = [
            WindowScorer(member.network, member.tokenizer, tokens, bf16=bf16)
            for member in self.members
        ]
        self.has_energy = have_energy(models)

    def score(self, examples: Sequence[Example], seed: int) -> Scores:
        """Calibrated probabilities and energies.

        Args:
            examples: none of them empty.
            seed: for an energy that draws.

        Raises:
            InputError: when a model gives what is no number.
        """
        found = [scorer.score(examples, seed) for scorer in self.scorers]
        for member, window in zip(self.members, found, strict=True):
            if not bool(torch.isfinite(window.logits_BC).all()):
                raise InputError(
                    f"The model with the classes {', '.join(member.labels)} gives logits that are "
                    "not finite.",
                    "a model whose weights are numbers",
                    "Train it again; precision=32-true, if another was asked for.",
                )
        probs_BC = sum(
            member.calibrator.probabilities(window.logits_BC)
            for member, window in zip(self.members, found, strict=True)
        ) / len(found)
        assert isinstance(probs_BC, torch.Tensor)
        energy_B = None
        if self.has_energy:
            energies = [window.energy_B for window in found if window.energy_B is not None]
            energy_B = torch.stack(energies).double().mean(dim=0).numpy()
        return Scores(probs_BC.double().numpy(), energy_B, max(window.cut for window in found))


def have_energy(models: Sequence[Model]) -> bool:
    """Whether all have an energy, and of one kind: others have no common mean."""
    kinds = {model.facts().energy for model in models}
    return len(kinds) == 1 and kinds != {"none"}
