"""The settings of a command: composed by Hydra, checked, and handed on as plain values.

What Hydra refuses is said as an `InputError`, with the setting that was probably meant.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from calib_ebm.config_path import conf_dir
from calib_ebm.errors import InputError
from calib_ebm.usage import group_choices

Settings = dict[str, Any]
Job = Callable[[Callable[[], Settings], str | None], None]
"""Takes a function that gives the settings, or raises, and what makes a run one of several."""

FLAGS = frozenset({"-m", "--multirun", "--resolve"})
"""Flags that may stand anywhere."""
OF_SEVERAL_KINDS = frozenset({"trainer.devices", "trainer.graphs"})
"""A number, a list or a word; true, false or a word."""
OR_NULL = frozenset(
    {"trainer.max_steps", "trainer.epochs", "noise.tune.max_steps", "noise.context"}
)
"""Numbers as shipped, where null has a meaning too."""
UNRESOLVED = object()
"""In place of a value that points at nothing: `plain` says what is wrong with it."""
KINDS: tuple[tuple[type, tuple[type, ...], str], ...] = (
    (bool, (bool,), "true or false"),
    (int, (int,), "a whole number"),
    (float, (int, float), "a number"),
    (str, (str, int, float, bool), "a word, in quotes if it has blanks or brackets"),
    (list, (list,), "a list, e.g. [0.9,0.999]"),
)
"""Kind of the shipped value, the kinds that may take its place, and how these are called."""


def noise_default(lm: str, small: Any, pretrained: Any) -> Any:
    """A setting of the noise model that depends on whether it is trained from scratch."""
    return small if lm == "small" else pretrained


def register_resolvers() -> None:
    """Make known what the files of conf/ call."""
    OmegaConf.register_new_resolver("noise_default", noise_default, replace=True)


def compose_and_run(config_name: str, job: Job, lists: Collection[str] = ()) -> None:
    """Compose the settings from the command line and run the job, or with -m the jobs.

    Args:
        config_name: the file of conf/.
        job: does the work.
        lists: settings that may hold several things with commas between them. Hydra takes a
            comma for several runs, so that without -m these are quoted for it.

    Raises:
        InputError: for choices and settings that do not exist, before any job begins.
    """
    register_resolvers()
    # Hydra takes flags in front of settings only.
    typed = [sys.argv[0], *sorted(sys.argv[1:], key=lambda word: word not in FLAGS)]
    several = bool({"-m", "--multirun"} & {*typed})
    sys.argv = typed if several else [quoted(word, lists) for word in typed]

    def once(config: DictConfig) -> None:
        ours = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        assert isinstance(ours, list)

        def settings() -> Settings:
            _check_choices(HydraConfig.get().runtime.choices)
            check_kinds(config, config_name, ours)
            return plain(config)

        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.argv = typed  # what is noted as the command is what was typed
            job(settings, None)
            return
        # What is noted as the command, and typed for further processes, is that of this run alone.
        sys.argv = [typed[0], *ours]
        try:
            job(settings, " ".join(word for word in ours if word not in typed))
        finally:
            sys.argv = typed

    once.__module__ = "__main__"
    # Hydra's own way with errors is to print them and leave; this makes it raise them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    start = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)
    try:
        start(once)()
    except CompactHydraException as error:
        raise _refusal(error, config_name, typed[1:]) from error


def quoted(word: str, lists: Collection[str]) -> str:
    """A setting as Hydra takes it whole, where it may hold commas, patterns or colons.

    >>> quoted("run=runs/a,runs/b", {"run"}), quoted("corrupt=[typos:0.1]", {"corrupt"})
    ("run='runs/a,runs/b'", 'corrupt=[typos:0.1]')
    """
    name, sign, value = word.partition("=")
    if name not in lists or not sign or value[:1] in ("", "[", "'", '"') or value == "null":
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'"


def plain(config: DictConfig) -> Settings:
    """Resolved settings as plain values.

    Raises:
        InputError: for a setting that must be given and is not, or cannot be resolved.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise InputError(
                f"No value was given for {', '.join(missing)}.",
                "a value for each",
                "Add " + " ".join(f"{key}=..." for key in missing) + " to the command.",
            )
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(
            f"The settings cannot be resolved: {str(error).splitlines()[0]}",
            "settings as in conf/",
            "Look at them with --cfg job.",
        ) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


# -------------------------------------------------------------------- what is not as it should be


def _is_choice(override: str) -> bool:
    group, _, name = override.partition("=")
    return name in group_choices(group)


def _shipped(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The settings as they are shipped, with the same choices of groups."""
    chosen = [override for override in overrides if _is_choice(override)]
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(config_name, chosen)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(config_name, chosen)


def _check_choices(chosen: Mapping[str, str | None]) -> None:
    """Refuse what other choices have in common as a choice of its own."""
    for group, name in chosen.items():
        if name is not None and group_choices(group) and name not in group_choices(group):
            raise _no_such_choice(f"{group}/{name}")


def check_kinds(config: DictConfig, config_name: str, overrides: Sequence[str]) -> None:
    """Refuse a word for a number, and the like; what no file gives a kind to passes."""
    names = [o.partition("=")[0] for o in overrides if not _is_choice(o) and not o.startswith("~")]
    names = [name.lstrip("+") for name in names if name not in OF_SEVERAL_KINDS]
    if not names:
        return
    shipped = _shipped(config_name, overrides)
    for name in names:
        before, given = _value(shipped, name), _value(config, name)
        if before is None or given is UNRESOLVED or (given is None and name in OR_NULL):
            continue
        for kind, allowed, called in KINDS:
            if type(before) is kind:
                if type(given) not in allowed:
                    raise InputError(
                        f"{name} is {given!r}.",
                        called,
                        f"Correct it, or leave it out: as shipped it is {before!r}.",
                    )
                break


def _value(config: DictConfig, name: str) -> Any:
    try:
        value = OmegaConf.select(config, name)
    except OmegaConfBaseException:
        return UNRESOLVED
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def _refusal(error: Exception, config_name: str, typed: Sequence[str]) -> InputError:
    """What Hydra refuses, as a sentence of ours."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(error.missing_cfg_file)
    if named := re.match(r"Could not override '([^']+)'", first):
        return _no_such_setting(named[1], config_name, typed)
    if isinstance(error, OverrideParseException):
        return InputError(
            f"{error.override!r} cannot be read as a setting.",
            "setting=value or group=choice",
            "Put quotes around a value with blanks, commas or brackets, and others around it all: "
            "'task.text=\"my column\"'.",
        )
    return InputError(
        f"The settings cannot be composed: {first}",
        "group=choice and setting=value, as --help lists them",
        "Correct what is named.",
    )


LAUNCHERS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""Hydra's launchers that come as packages of their own, and our extra that installs each."""


def _no_such_choice(missing: str) -> InputError:
    group, _, name = missing.rpartition("/")
    if group == "hydra/launcher":
        return _no_such_launcher(name)
    there = group_choices(group)
    return InputError(
        f"There is no {group}={name}.",
        ", ".join(there) or f"nothing: {group} has no choices yet",
        _meant([f"{group}={close}" for close in difflib.get_close_matches(name, there, 1)]),
    )


def _no_such_launcher(name: str) -> InputError:
    if name in LAUNCHERS:
        return InputError(
            f"hydra/launcher={name} is not installed.",
            "basic, and launchers that are installed",
            f"pip install 'calib-ebm[{LAUNCHERS[name]}]', or leave it out: the runs of a sweep are "
            "then made one after another.",
        )
    there = ["basic", *LAUNCHERS]
    close = difflib.get_close_matches(name, there, 1)
    return InputError(
        f"There is no hydra/launcher={name}.",
        ", ".join(there),
        _meant([f"hydra/launcher={word}" for word in close]),
    )


def _no_such_setting(name: str, config_name: str, typed: Sequence[str]) -> InputError:
    shipped = _shipped(config_name, [word for word in typed if not word.startswith("-")])
    names = list(_names(OmegaConf.to_container(shipped)))
    parent = name.rpartition(".")[0]
    beside = [n for n in names if n.rpartition(".")[0] == parent] or [
        n for n in names if "." not in n
    ]
    # Of settings with the same last name the one nearest to the top: optim.lr, not task.recipe.lr.
    short = {n.rpartition(".")[2]: n for n in sorted(names, key=lambda n: -n.count("."))}
    close = difflib.get_close_matches(name, names, 1, cutoff=0.75) or [
        short[last] for last in difflib.get_close_matches(name.rpartition(".")[2], short, 1)
    ]
    return InputError(f"There is no setting {name}.", ", ".join(beside), _meant(close))


def _meant(close: Sequence[str]) -> str:
    if close:
        return f"Did you mean {close[0]}? --help lists choices, --cfg job --resolve all settings."
    return "--help lists choices, --cfg job --resolve all settings."


def _names(settings: Any, at: str = "") -> Iterator[str]:
    """Dotted names of all settings, groups too."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            name = f"{at}.{key}" if at else str(key)
            yield name
            yield from _names(value, name)
