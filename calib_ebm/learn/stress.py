"""Other sets than the clean one: other texts, texts made worse, texts of another task.

Each is measured as the clean set is, with the calibrator fitted on the clean fit half, and then
against it: the difference of each figure, paired where the texts are the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calib_ebm.calibration import ood
from calib_ebm.calibration.compare import paired_bootstrap
from calib_ebm.calibration.intervals import Estimate
from calib_ebm.calibration.unpaired import unpaired_difference
from calib_ebm.errors import InputError
from calib_ebm.learn.evaluated import Evaluated
from calib_ebm.learn.figures import FINE, entropy_each, flat
from calib_ebm.learn.finished import find_paths, listed
from calib_ebm.report.predictions import Predictions
from calib_ebm.report.stress import CLEAN, StressRow
from calib_ebm.shapes import Example
from calib_ebm.text.corrupt import Corruption, parse_corruption
from calib_ebm.text.files import read_set
from calib_ebm.text.other import read_other_task
from calib_ebm.text.task import TaskData, digest

Config = Mapping[str, Any]
Difference = Callable[[Tensor, Tensor, str], Estimate]

DIFFERENCE = "difference/"
"""In front of a figure's name in metrics.json: the figure less that of the clean set."""
COMPARED = ("cal/ece", "cal/ece_classwise", "cal/ece_pooled", "nll", "brier")
"""What is compared with the clean set besides the task's own metrics."""
DATA, OOD = "data", "ood"
KIND_OF_OTHER = (DATA, OOD)


@dataclass(frozen=True)
class StressSet:
    """A set of texts to be scored.

    Attributes:
        kind: clean, data, ood, or a corruption's.
        examples: as they are before any corruption.
        digests: of what was read besides the run's own data.
    """

    name: str
    kind: str
    examples: tuple[Example, ...]
    corruption: Corruption | None = None
    notes: tuple[str, ...] = ()
    digests: tuple[tuple[str, str], ...] = ()

    @property
    def same_texts(self) -> bool:
        """Whether the texts are those of the clean set."""
        return self.kind not in KIND_OF_OTHER


def clean_set(task: TaskData) -> StressSet:
    """The run's own reported texts."""
    return StressSet(CLEAN, CLEAN, task.test)


def other_sets(config: Config, task: TaskData, task_config: Config) -> tuple[StressSet, ...]:
    """The sets that the settings `data`, `corrupt` and `ood` ask for.

    Raises:
        InputError: for a file, a corruption or a name of a task that cannot be used.
    """
    columns = {
        "text": config["text"] or task_config.get("text") or "sentence",
        "text_pair": config["text_pair"] or task_config.get("text_pair"),
        "label": config["label"] or task_config.get("label") or "label",
    }
    asked = config["label"] is not None
    corruptions = [parse_corruption(given) for given in listed(config["corrupt"])]
    sets: list[StressSet] = []
    with _settings_of_evaluate():
        for path in find_paths(config["data"], "data"):
            examples, notes = read_set(path, columns, task.labels, label_may_be_absent=not asked)
            sets.append(_read_set(path.stem, DATA, examples, notes, path.name))
        sets += [StressSet(c.name, c.kind, task.test, c) for c in corruptions]
        for given in _ood_given(config["ood"]):
            name, examples, notes = read_other_task(given, columns)
            sets.append(_read_set(name, OOD, examples, notes, name))
    _refuse_twice([each.name for each in sets])
    return tuple(sets)


def _ood_given(value: Any) -> tuple[str, ...]:
    """Names of tasks as they are, patterns of files as the files."""
    return tuple(
        str(path) if "*" in item else item
        for item in listed(value)
        for path in (find_paths(item, "ood") if "*" in item else (item,))
    )


def _read_set(
    name: str, kind: str, examples: tuple[Example, ...], notes: tuple[str, ...], source: str
) -> StressSet:
    if not examples:
        raise InputError(f"{kind}={source} holds no texts.", "a file with texts", "Check the file.")
    return StressSet(name, kind, examples, None, notes, ((source, digest(examples)),))


@contextmanager
def _settings_of_evaluate() -> Iterator[None]:
    """Errors of the readers name the settings of `task`; here they have no group."""
    try:
        yield
    except InputError as error:
        parts = (error.given, error.allowed, error.to_do)
        raise InputError(*(part.replace("task.", "") for part in parts)) from error


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"Two sets would be called {twice[0]}.",
            "sets with names of their own: those of files are the names without the ending",
            "Name each set once, or rename a file.",
        )


def halved(task: TaskData) -> TaskData:
    """A crossfitted task with some folds to fit on and the others to report.

    A text made worse may not be calibrated by what its own clean form has taught.
    """
    if task.folds is None:
        return task
    first = (max(task.folds) + 1) // 2
    pairs = list(zip(task.fit, task.folds, strict=True))
    note = (
        f"The run was crossfitted; here calibrators are fitted on {first} of its "
        f"{max(task.folds) + 1} folds and the others are reported, for a text made worse must not "
        "be calibrated by its own clean form."
    )
    return replace(
        task,
        fit=tuple(example for example, fold in pairs if fold < first),
        test=tuple(example for example, fold in pairs if fold >= first),
        folds=None,
        notes=(*task.notes, note),
    )


# ------------------------------------------------------------------------- against the clean set


def against_clean(
    clean: Evaluated, other: Evaluated, metrics: Sequence[str], *, paired: bool, seed: int
) -> dict[str, Estimate]:
    """Each figure of a set less that of the clean set, by its name in metrics.json.

    Args:
        clean: the clean set.
        other: the other one.
        metrics: the task's own.
        paired: whether both are of the same texts.
        seed: of the bootstrap.
    """
    first, second = other.table.of("test"), clean.table.of("test")
    assert not paired or first.ids == second.ids, "paired by id"
    labels = torch.from_numpy(first.labels_N), torch.from_numpy(second.labels_N)
    both = (
        ("test", other.calibrated.plain_NC, clean.calibrated.plain_NC),
        ("test_calibrated", other.calibrated.calibrated_NC, clean.calibrated.calibrated_NC),
    )
    found: dict[str, Estimate] = {}
    for prefix, a_NC, b_NC in both:
        names = (*(f"cls/{m}" for m in metrics), *COMPARED)
        for name in names if other.table.labelled and clean.table.labelled else ():
            if paired:
                exact = paired_bootstrap(a_NC, b_NC, labels[0], name, seed=seed)
                found[f"{prefix}/{name}"] = Estimate(exact.value, exact.low, exact.high)
            else:
                found[f"{prefix}/{name}"] = unpaired_difference(
                    (a_NC, labels[0]), (b_NC, labels[1]), name, seed=seed
                )
        for name, each in (
            ("confidence", lambda p_NC: p_NC.amax(dim=1)),
            ("entropy", entropy_each),
        ):
            found[f"{prefix}/{name}"] = mean_difference(each(a_NC), each(b_NC), paired=paired)
    if first.energy_N is not None and second.energy_N is not None:
        found["energy/data"] = mean_difference(
            torch.from_numpy(first.energy_N), torch.from_numpy(second.energy_N), paired=paired
        )
    return found


def mean_difference(values_a_N: Tensor, values_b_N: Tensor, *, paired: bool) -> Estimate:
    """Mean of a less mean of b with the normal 95% interval, of pairs or of two samples.

    >>> a, b = torch.tensor([2.0, 4.0, 6.0]), torch.tensor([1.0, 3.0, 5.0])
    >>> mean_difference(a, b, paired=True)
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    a_N, b_N = values_a_N.double(), values_b_N.double()
    value = (a_N.mean() - b_N.mean()).item()
    samples = (a_N - b_N,) if paired else (a_N, b_N)
    variances = (s.var().item() / len(s) if len(s) > 1 else 0.0 for s in samples)
    half = FINE * math.sqrt(sum(variances))
    return Estimate(value, value - half, value + half)


def told_apart(clean: Evaluated, other: Evaluated, seed: int) -> tuple[dict[str, Estimate], str]:
    """AUROC and FPR at 95% TPR of the clean texts against texts of another task, by each score.

    By the probabilities before calibration, which a temperature would order the same for two
    classes.

    Returns:
        estimates by their names in metrics.json, and a sentence with the ratio in : out.
    """
    scores = []
    for each in (clean, other):
        test = each.table.of("test")
        energy_N = None if test.energy_N is None else torch.from_numpy(test.energy_N)
        scores.append(ood.scores(each.calibrated.plain_NC, energy_N))
    found: dict[str, Estimate] = {}
    ratio = ""
    for name in scores[0].keys() & scores[1].keys():
        apart = ood.separation(scores[0][name], scores[1][name], seed=seed)
        found[f"ood/auroc/{name}"], found[f"ood/fpr95/{name}"] = apart.auroc, apart.fpr
        ratio = apart.ratio
    note = f"In against out of distribution: {ratio} texts, clean test texts to those of this set."
    return dict(sorted(found.items())), note


# ------------------------------------------------------------------------------------- the rows


def further_metrics(
    differences: Mapping[str, Estimate], apart: Mapping[str, Estimate]
) -> dict[str, float]:
    """What metrics.json of a stress set holds besides its own figures."""
    found: dict[str, float] = {}
    for name, estimate in differences.items():
        found |= flat({name: estimate}, DIFFERENCE.removesuffix("/"))
    for name, estimate in apart.items():
        found |= flat({name.removeprefix("ood/"): estimate}, "ood")
    return found


def rows_of(
    stress: StressSet,
    folder: str,
    scoring: str,
    calibrator: str,
    table: Predictions,
    metrics: Mapping[str, float],
) -> tuple[StressRow, ...]:
    """The set's rows of stress.csv, from its figures."""
    rows = []
    for name in sorted(metrics):
        ends = name.endswith(("/low", "/high")) or "/floor" in name or "/p_value" in name
        kinds = ("test/", "test_calibrated/", "energy/data", "ood/")
        if ends or not name.startswith(kinds) or "/true" in name:
            continue
        gap = f"{DIFFERENCE}{name}"
        rows.append(
            StressRow(
                set=stress.name,
                kind=stress.kind,
                rate=None if stress.corruption is None else stress.corruption.rate,
                folder=folder,
                scoring=scoring,
                calibrator=calibrator,
                n=len(table.of("test").ids),
                metric=name,
                value=metrics[name],
                low=metrics.get(f"{name}/low"),
                high=metrics.get(f"{name}/high"),
                difference=metrics.get(gap),
                difference_low=metrics.get(f"{gap}/low"),
                difference_high=metrics.get(f"{gap}/high"),
                paired=stress.same_texts if gap in metrics else None,
            )
        )
    return tuple(rows)


def home_of(out: Any, run: Path) -> Path:
    """The folder that holds the evaluations and their summary."""
    return run / "evaluations" if out is None else Path(str(out)).expanduser()
