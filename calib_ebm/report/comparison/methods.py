"""What a run's method is: the settings in which the runs differ, seed and place aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from calib_ebm.errors import InputError

Flat = dict[str, Any]
"""Dotted name to value."""

ELSEWHERE = ("seed", "run_dir", "cache_dir", "overwrite", "logger", "hydra", "debug", "experiment")
"""Settings of a run that are none of its method."""
OF_THE_TASK = ("name", "source", "data_dir", "train", "dev", "recipe")
"""What a task is, and where. A recipe's values are in the settings that they were copied to."""
OF_THE_MACHINE = (
    "trainer.accelerator",
    "trainer.checkpoint_every",
    "trainer.devices",
    "trainer.eval_batch_size",
    "trainer.graphs",
    "trainer.log_every",
    "trainer.measurements",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.threads",
    "trainer.workers",
    "noise.draw_batch_size",
)
ENERGY, LOSS, NOISE, PER_TEXT = "energy.name", "loss.name", "noise.name", "noise.per_text"
CALIBRATOR, ENCODER = "calibrator.name", "encoder.name_or_path"
FIRST = (ENERGY, LOSS, NOISE, PER_TEXT, CALIBRATOR, ENCODER, "loss.nce_weight")
"""Named before all others, which they often decide."""
PLAIN_LOSS = "cross_entropy"
"""With the energy's loss where there is an energy."""
PLAIN_NAMES = ("none", "baseline", "plain", "plain fine-tuning", "cross_entropy")
"""What tables of plain fine-tuning are called."""
ONLY_WITH_ENERGY = ("noise.", "loss.nce_weight", "loss.ramp", "loss.gate", "energy.")


def method_settings(config: Mapping[str, Any]) -> Flat:
    """The settings of a run that may make its method another one's."""
    kept = {key: value for key, value in config.items() if key not in ELSEWHERE}
    if isinstance(task := kept.get("task"), Mapping):
        kept["task"] = {key: value for key, value in task.items() if key not in OF_THE_TASK}
    flat = {name: value for name, value in _flat(kept).items() if name not in OF_THE_MACHINE}
    if flat.get(ENERGY, "none") == "none":
        # Plain fine-tuning has these settings too, and uses none of them.
        flat = {k: v for k, v in flat.items() if k == ENERGY or not k.startswith(ONLY_WITH_ENERGY)}
    return flat


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Flat:
    flat: Flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def names_of_methods(tasks: Sequence[str], settings: Sequence[Flat]) -> list[str]:
    """The name of each run's method: as short as tells the methods of a task apart.

    Args:
        tasks: of each run.
        settings: of each run, from `method_settings`.

    >>> names_of_methods(["a", "a"], [{"energy.name": "none"}, {"energy.name": "hidden"}])
    ['plain fine-tuning', 'hidden']
    """
    naming = _naming(tasks, settings)
    names = [_name(flat, naming, short=True) for flat in settings]
    # Two encoders may have the same last name.
    keys_of: dict[str, set[str]] = {}
    for name, flat in zip(names, settings, strict=True):
        keys_of.setdefault(name, set()).add(_key(flat, naming))
    return [
        _name(flat, naming, short=len(keys_of[name]) == 1)
        for name, flat in zip(names, settings, strict=True)
    ]


def _key(flat: Flat, naming: Sequence[str]) -> str:
    return repr([flat.get(name) for name in naming])


def _naming(tasks: Sequence[str], settings: Sequence[Flat]) -> tuple[str, ...]:
    """Settings that part the runs of one task, those that are decided by earlier ones left out."""
    others = sorted({name for flat in settings for name in flat} - set(FIRST))
    group = list(tasks)
    chosen = []
    for name in (*FIRST, *others):
        # A run of another version may lack a setting: that alone makes no other method.
        values: dict[str, set[str]] = {}
        for mine, flat in zip(group, settings, strict=True):
            if name in flat:
                values.setdefault(mine, set()).add(repr(flat[name]))
        if any(len(different) > 1 for different in values.values()):
            chosen.append(name)
            group = [f"{g}\0{f.get(name)!r}" for g, f in zip(group, settings, strict=True)]
    return tuple(chosen)


def _name(flat: Flat, naming: Sequence[str], *, short: bool) -> str:
    energy, loss = str(flat.get(ENERGY, "none")), str(flat.get(LOSS, PLAIN_LOSS))
    plain = "plain fine-tuning" if energy == "none" else energy
    if loss != PLAIN_LOSS:
        plain = loss if energy == "none" else f"{energy} + {loss}"
    parts = [plain]
    last = Counter(name.rpartition(".")[2] for name in naming)
    for name in naming:
        if name in (ENERGY, LOSS) or name not in flat:
            continue
        value = _written(flat[name])
        if name == NOISE:
            parts.append(f"{value} noise")
        elif name == PER_TEXT:
            parts.append(f"K={value}")
        elif name == CALIBRATOR:
            parts.append("no calibrator" if value == "none" else f"calibrator {value}")
        elif name == ENCODER:
            parts.append(value.rstrip("/").rpartition("/")[2] if short else value)
        else:
            tail = name.rpartition(".")[2]
            parts.append(f"{tail if short and last[tail] == 1 else name}={value}")
    return ", ".join(parts)


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def names_with_tables(
    tasks: Sequence[str], settings: Sequence[Flat], given: Sequence[str | None]
) -> list[str]:
    """The names of the methods of runs and of stored tables.

    A table's is its file's. Where a run's method has the same, a table is told from it: nobody
    knows the table's settings.

    Args:
        tasks: of each.
        settings: of each; of a table none.
        given: the name of each table; None of a run.

    >>> names_with_tables(["a", "a"], [{"energy.name": "hidden"}, {}], [None, "hidden"])
    ['hidden', 'hidden (table)']
    """
    runs = [place for place, name in enumerate(given) if name is None]
    found = names_of_methods([tasks[r] for r in runs], [settings[r] for r in runs])
    of_runs = dict(zip(runs, found, strict=True))
    return [
        of_runs[place] if name is None else f"{name} (table)" if name in found else name
        for place, name in enumerate(given)
    ]


def is_plain(settings: Flat) -> bool:
    """Whether this is fine-tuning by cross-entropy alone."""
    return settings.get(ENERGY, "none") == "none" and settings.get(LOSS, PLAIN_LOSS) == PLAIN_LOSS


def find_baseline(
    names: Sequence[str], settings: Sequence[Flat], asked: str | None = None
) -> str | None:
    """The method that the others are compared with; None if there is none that is plain.

    Args:
        names: of each run's method, and of each table's.
        settings: of each run; of a table none, and its name says whether it is plain.
        asked: the baseline= that a person gave.

    Raises:
        InputError: no method has the name that was asked for.
    """
    if asked is not None:
        if asked not in names:
            raise InputError(
                f"baseline={asked!r} is no method of these runs.",
                " | ".join(sorted(set(names))),
                "Give one of these in quotes, or leave it out: then it is plain fine-tuning, where "
                "there is such.",
            )
        return asked
    plain = Counter(
        name for name, flat in zip(names, settings, strict=True) if flat and is_plain(flat)
    ).most_common()
    # Of several, the one with most runs; of as many, the one with the shortest name.
    if plain:
        return min(plain, key=lambda each: (-each[1], len(each[0]), each[0]))[0]
    tables = {n for n, flat in zip(names, settings, strict=True) if not flat and n in PLAIN_NAMES}
    return tables.pop() if len(tables) == 1 else None
