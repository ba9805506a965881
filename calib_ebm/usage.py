"""What `--help` of a command says, in 80 columns, before anything heavy is imported.

The choices are read from the files of `conf/`, so that they cannot drift from what there is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from calib_ebm.config_path import conf_dir

WIDTH = 79
INDENT = 26

TASK = {
    "task.data_dir": "folder of a task's classic GLUE download; null: the Hub",
    "task.train, task.dev": "files of your own, with task=csv, tsv, jsonl or parquet; without "
    "task.dev a part of train is held out",
    "task.text, task.text_pair, task.label": "their columns",
}
NOISE = {
    "noise.lm": "the noise model: a Hub id, a local folder, or small",
    "noise.mask_rate": "share of tokens masked before the noise model writes",
}
NOISE_GROUPS = ("task", "encoder", "noise", "trainer")
"""What matters before anything is trained."""
BANK = {
    "noise.per_text": "K, noise texts for each text that gets noise",
    "noise.share": "share of each batch's texts that get noise",
}
TRAINING = {
    "encoder.name_or_path": "the classifier's encoder: a Hub id, a local folder, or small",
    "loss.nce_weight": "lambda, the weight of the energy's loss",
    "optim.lr, optim.batch_size": "learning rate; texts a step",
    "trainer.max_steps, trainer.epochs": "how long; steps win over epochs",
    "seed": "draws weights, order, dropout, masks and noise",
}
PLACES = {
    "run_dir": "where the run goes; null: runs/<a name made of the settings>",
    "cache_dir": "where noise models and noise are kept",
    "overwrite": "true runs again what is finished",
}


@dataclass(frozen=True)
class Usage:
    """A command as a person is told of it.

    Args:
        name: as it is typed behind `python -m calib_ebm.`.
        config: the file of `conf/` that holds its settings.
        about: the command's docstring: what it does, and examples on lines of their own.
        settings: those that are often changed, each with what it is.
        groups: which groups matter to the command; all of its configuration when empty.
        lists: settings that may hold several things with commas between them.
    """

    name: str
    config: str
    about: str
    settings: Mapping[str, str]
    groups: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [line.strip() for line in self.about.splitlines()]
        examples = [line for line in lines if line.startswith("python -m ")]
        about = " ".join(line for line in lines if line and line not in examples)
        parts = [
            f"python -m calib_ebm.{self.name} {self._words()}",
            textwrap.fill(about, WIDTH),
            *self._groups(),
            "Settings that are often changed:\n" + table(self.settings),
            "Examples:\n" + "\n".join(f"  {line}" for line in examples),
            "-m runs every combination of what is given with commas; --cfg job --resolve\n"
            "shows all settings and runs nothing; --hydra-help shows what else Hydra can.",
        ]
        return "\n\n".join(parts)

    def _words(self) -> str:
        return "[group=choice ...] [setting=value ...]" if self._groups() else "[setting=value ...]"

    def _groups(self) -> tuple[str, ...]:
        found = choices(self.config, self.groups)
        head = "Groups; the first choice is taken when nothing is said:\n"
        return (head + table(found),) if found else ()


def choices(config: str, groups: Collection[str] = ()) -> dict[str, str]:
    """Groups of a configuration and their choices, the default in front; or only some groups."""
    text = (conf_dir() / f"{config}.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    chosen: dict[str, str | None] = {}
    for item in loaded["defaults"]:
        chosen |= item if isinstance(item, dict) else {}
    return {
        group: ", ".join(group_choices(group, default or "null"))
        for group, default in chosen.items()
        if group_choices(group) and (group in groups or not groups)
    }


def group_choices(group: str, first: str | None = None) -> list[str]:
    """The choices of a group in the order of the alphabet, `first` in front."""
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    # What other choices have in common is none of its own.
    names = [name for name in names if name != "base"]
    return [first, *(name for name in names if name != first)] if first else names


def table(rows: Mapping[str, str]) -> str:
    """Names with what is said of each, in two columns.

    >>> print(table({"seed": "draws", "task.text, task.text_pair, task.label": "columns"}))
      seed                    draws
      task.text, task.text_pair, task.label
                              columns
    """
    lines = []
    for name, said in rows.items():
        wrapped = textwrap.wrap(said, WIDTH - INDENT) or [""]
        if len(name) > INDENT - 4:
            lines.append(f"  {name}")
        else:
            lines.append(f"  {name}".ljust(INDENT) + wrapped.pop(0))
        lines += [" " * INDENT + line for line in wrapped]
    return "\n".join(lines)
