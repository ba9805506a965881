"""The record of a task: its labelled texts, cut into those to learn, calibrate and report on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calib_ebm.shapes import Example

if TYPE_CHECKING:
    from calib_ebm.text.embedded import Language

METRICS = ("acc", "mcc", "f1")
"""What a task may be judged by: accuracy, Matthews' correlation, F1 of the class with index 1."""


@dataclass(frozen=True)
class TaskTexts:
    """A task as its reader found it, before it is cut."""

    name: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    truth: Language | None = None

    @property
    def digests(self) -> dict[str, str]:
        """Of train and of dev: see `digest`."""
        return {"train": digest(self.train), "dev": digest(self.dev)}


@dataclass(frozen=True)
class TaskData:
    """A task, read and cut.

    No example is in two of `train`, `fit` and `test`; but with `folds`, `fit` and `test` are the
    same texts, of which each fold is reported after a calibrator fitted on the others.
    """

    name: str
    labels: tuple[str, ...]
    """Class names in index order."""
    metrics: tuple[str, ...]
    """Of `METRICS`: the task's own, `acc` always first."""
    train: tuple[Example, ...]
    fit: tuple[Example, ...]
    """The texts on which calibrators are fitted."""
    test: tuple[Example, ...]
    """The texts that are reported."""
    notes: tuple[str, ...]
    """Sentences for the person: what was dropped, how many, why."""
    digests: dict[str, str]
    """Source split (train, dev) -> sha256 of its kept examples."""
    truth: Language | None = None
    """Embedded task only: exact P(x) and P(y|x)."""
    folds: tuple[int, ...] | None = None
    """Of each text of `fit`, and so of `test`; None where the two have no text in common."""

    @property
    def label_count_C(self) -> tuple[int, ...]:
        """How many texts of `train` have each of the C labels."""
        count = Counter(example.label for example in self.train)
        return tuple(count[index] for index in range(len(self.labels)))

    def __post_init__(self) -> None:
        assert self.metrics[0] == "acc", self.metrics
        assert set(self.metrics) <= set(METRICS), self.metrics
        if self.folds is not None:
            assert self.fit == self.test, "folds of what?"
            assert len(self.folds) == len(self.fit), "folds of what?"
        held_out = (self.fit,) if self.folds is not None else (self.fit, self.test)
        ids = [example.id for part in (self.train, *held_out) for example in part]
        assert len(set(ids)) == len(ids), "an example is in two parts"


def digest(examples: Iterable[Example]) -> str:
    """The sha256 of ids, texts and labels, in their order.

    >>> digest([Example("dev-0", "fine", None, 1)])[:12]
    '1c9483b6ba41'
    """
    state = hashlib.sha256()
    for example in examples:
        state.update(json.dumps(list(example)).encode("ascii") + b"\n")
    return state.hexdigest()
