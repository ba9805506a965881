"""The package's shape, read from its source: who may import what, and what no file may do.

Each check is a function of a file's place and text that returns complaints, so that the same
function is run over the package and, as a negative control, over a few bad lines.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "calib_ebm"
COMMANDS = (
    "command",
    "settings",
    "train",
    "evaluate",
    "predict",
    "tune_noise",
    "draw_noise",
    "report/__main__",
)

# A room is a folder or a file directly in the package. What each may import, itself aside.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "shapes": set(),
    "ranks": set(),
    "config_path": {"errors"},
    "hub": set(),
    "lock": set(),
    "names": set(),
    "usage": {"config_path"},
    "dealing": {"errors"},
    "durable": set(),
    "text": {"shapes", "errors", "hub", "dealing"},
    "tokens": {"shapes", "errors", "hub", "lock", "durable", "text"},
    "noise": {"shapes", "errors", "hub", "lock", "durable", "text", "tokens"},
    "energy": {"shapes", "errors", "hub"},
    "loss": {"shapes", "errors"},
    "calibration": {"shapes", "errors"},
    "report": {"shapes", "errors", "calibration", "dealing", "durable", "names", "lock"},
}
ROOMS = set(MAY_IMPORT)
MAY_IMPORT["windows"] = {"shapes", "tokens", "energy", "errors"}
MAY_IMPORT["model_folder"] = {"errors", "names", "energy", "calibration"}
MAY_IMPORT["classifier"] = {
    "shapes",
    "errors",
    "names",
    "tokens",
    "energy",
    "calibration",
    "model_folder",
    "windows",
}
MAY_IMPORT["__init__"] = {"classifier"}
MAY_IMPORT["learn"] = ROOMS | {"classifier", "model_folder", "windows", "__init__"}
MAY_IMPORT |= {name: MAY_IMPORT["learn"] | {"learn", "command", "settings"} for name in COMMANDS}

# The only places of a library: a room, or one file of it. An empty tuple: nowhere.
HOMES: dict[str, tuple[str, ...]] = {
    "transformers": (
        "energy/encoder.py",
        "energy/packed.py",
        "energy/masked_lm.py",
        "tokens/tokenizer.py",
        "noise/lm.py",
    ),
    "peft": ("energy/lora.py",),
    "pytorch_lightning": ("learn",),
    "lightning": (),  # the same library under its other name
    "hydra": ("settings.py",),
    "matplotlib": ("report",),
    "torchmetrics": ("calibration/metrics.py", "calibration/metrics_stored.py"),
    "datasets": ("text/hub.py",),
    "pyarrow": ("text", "noise/bank.py", "report"),
    "wandb": (),  # only through Lightning's WandbLogger
}
WANDB_LOGGER_HOME = "learn/loggers.py"

# Formulas can be read, and tested, without a model.
FORMULAS = ("loss", "calibration", "energy/heads.py")
ACCUMULATES = HOMES["torchmetrics"]  # the files of these that are no formulas
FORMULAS_MAY_IMPORT = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "functools",
    "math",
    "statistics",
    "torch",
    "typing",
}
HEAVY = {"torch", "omegaconf", *HOMES}

EXECUTES_WHAT_IT_READS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
LONGEST_BODY = 60
LONGEST_FILE = 400

Check = Callable[[str, str], list[str]]


def imports_of(place: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported, in functions too; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["calib_ebm", *place.split("/")][: -node.level]
                base = ".".join([*parents, base]).strip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and called(node).endswith(("import_module", "__import__"))
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def called(node: ast.Call) -> str:
    """The called name as written, `torch.load`; only its last part where it is no plain name."""
    parts, target = [], node.func
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    parts.append(target.id if isinstance(target, ast.Name) else "")
    return ".".join(reversed(parts))


def calls_of(source: str) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))


def room_of(place: str) -> str:
    # A command that lies in a room, for the room has its name, may import what commands may.
    command = place.removesuffix(".py")
    return command if command in COMMANDS else place.split("/")[0].removesuffix(".py")


def room_imported(name: str) -> str | None:
    """The room of ours that an imported name lies in; None for a library."""
    top, *rest = name.split(".")
    if top != "calib_ebm":
        return None
    return rest[0] if rest and rest[0] in MAY_IMPORT else "__init__"


def at_home(place: str, homes: tuple[str, ...]) -> bool:
    return place in homes or (room_of(place) in homes and "/" in place)


def is_formula(place: str) -> bool:
    return at_home(place, FORMULAS) and place not in ACCUMULATES


def import_directions(place: str, source: str) -> list[str]:
    room = room_of(place)
    if room not in MAY_IMPORT:
        return [f"{place}: {room} is in no row of MAY_IMPORT: say what it may import"]
    targets = ((line, room_imported(name)) for line, name in imports_of(place, source))
    return [
        f"{place}:{line}: {room} imports {target}"
        for line, target in targets
        if target is not None and target != room and target not in MAY_IMPORT[room]
    ]


def homes_of_libraries(place: str, source: str) -> list[str]:
    complaints = []
    for line, name in imports_of(place, source):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None and not at_home(place, homes):
            complaints.append(f"{place}:{line}: {name} belongs in {homes or 'no file'}")
        if name.endswith("WandbLogger") and place != WANDB_LOGGER_HOME:
            complaints.append(f"{place}:{line}: WandbLogger belongs in {WANDB_LOGGER_HOME}")
    return complaints


def formulas_import_torch_only(place: str, source: str) -> list[str]:
    if not is_formula(place):
        return []

    def allowed(name: str) -> bool:
        if name.startswith("calib_ebm."):
            parts = name.split(".")[1:]
            return parts[0] in ("shapes", "errors") or is_formula("/".join(parts[:2]) + ".py")
        return any(name == good or name.startswith(f"{good}.") for good in FORMULAS_MAY_IMPORT)

    return [
        f"{place}:{line}: a formula imports {name}"
        for line, name in imports_of(place, source)
        if not allowed(name)
    ]


def only_commands_speak_and_exit(place: str, source: str) -> list[str]:
    if place.removesuffix(".py") in COMMANDS:
        return []
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit"}
    return [
        f"{place}:{call.lineno}: {called(call)}() outside the commands"
        for call in calls_of(source)
        if called(call) in forbidden
    ]


def nothing_read_is_executed(place: str, source: str) -> list[str]:
    complaints = [
        f"{place}:{line}: {name} executes what it reads"
        for line, name in imports_of(place, source)
        if name.split(".")[0] in EXECUTES_WHAT_IT_READS
        or name in ("torch.load", "torch.hub")  # by a short name they would escape the next check
    ]
    for call in calls_of(source):
        name, given = called(call), {word.arg: word.value for word in call.keywords}
        weights_only = given.get("weights_only")
        safe = isinstance(weights_only, ast.Constant) and weights_only.value is True
        resumes = name.endswith((".fit", ".validate", ".test")) and "ckpt_path" in given
        if (name == "torch.load" or name.endswith("load_from_checkpoint") or resumes) and not safe:
            complaints.append(f"{place}:{call.lineno}: {name}() without weights_only=True")
        if name in ("eval", "exec") or "allow_pickle" in given:
            complaints.append(f"{place}:{call.lineno}: {name}() executes what it is given")
    return complaints


def nothing_runs_at_import(place: str, source: str) -> list[str]:
    return [
        f"{place}:{node.lineno}: a call at import"
        for node in ast.parse(source).body
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or isinstance(node, ast.For | ast.While | ast.With)
    ]


def no_long_tail(place: str, source: str) -> list[str]:
    complaints = []
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        complaints.append(f"{place}: {lines} lines, more than {LONGEST_FILE}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > LONGEST_BODY:
                complaints.append(
                    f"{place}:{node.lineno}: {node.name} has {length} lines, "
                    f"more than {LONGEST_BODY}"
                )
    return complaints


def public_names_are_explained(place: str, source: str) -> list[str]:
    tree = ast.parse(source)
    public = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    )
    silent_file = [] if ast.get_docstring(tree) else [f"{place}: no docstring"]
    return silent_file + [
        f"{place}:{node.lineno}: {node.name} has no docstring"
        for node in public
        if not ast.get_docstring(node)
    ]


def long_function(lines: int) -> str:
    return "def long() -> None:\n" + "    pass\n" * lines


# Each check with lines that it must catch and lines, next to them, that it must let pass.
CONTROLS: list[tuple[Check, list[tuple[str, str]], list[tuple[str, str]]]] = [
    (
        import_directions,
        [
            ("text/task.py", "from calib_ebm.tokens import encode"),
            ("energy/heads.py", "def f():\n    import calib_ebm.loss.nce"),
            ("loss/nce.py", "from ..energy import heads"),
            ("loss/nce.py", "from calib_ebm import energy"),
            ("noise/bank.py", "import calib_ebm"),
            (
                "report/page.py",
                "import importlib\nimportlib.import_module('calib_ebm.text')",
            ),
            ("report/page.py", "from calib_ebm.command import say"),
            ("text/__main__.py", "from calib_ebm.command import say"),
            ("attic/old.py", ""),
        ],
        [
            ("tokens/encode.py", "from calib_ebm.text.task import TaskData"),
            ("loss/joint.py", "from calib_ebm.loss.nce import nce_loss\nfrom . import nce"),
            ("report/page.py", "from calib_ebm import calibration"),
            ("train.py", "from calib_ebm.learn.run import run"),
            ("report/__main__.py", "from calib_ebm.command import run_command"),
        ],
    ),
    (
        homes_of_libraries,
        [
            ("report/page.py", "from transformers import AutoModel"),
            ("energy/heads.py", "def f():\n    import transformers.models"),
            ("noise/bank.py", "import pytorch_lightning as pl"),
            ("learn/module.py", "import hydra"),
            ("train.py", "import hydra"),  # --help would wait for it
            ("learn/module.py", "import lightning"),
            ("learn/loggers.py", "import wandb"),
            ("learn/module.py", "from pytorch_lightning.loggers import WandbLogger"),
            ("calibration/errors.py", "from torchmetrics import Metric"),
            ("noise/lm.py", "import pyarrow.parquet"),
        ],
        [
            ("energy/encoder.py", "from transformers import AutoModel"),
            ("learn/loggers.py", "from pytorch_lightning.loggers import WandbLogger"),
            ("noise/bank.py", "import pyarrow"),
            ("settings.py", "import hydra"),
            ("text/hub.py", "import datasets"),
        ],
    ),
    (
        formulas_import_torch_only,
        [
            ("loss/nce.py", "import numpy as np"),
            ("energy/heads.py", "from collections import Counter"),
            ("calibration/errors.py", "from calib_ebm.calibration.metrics import Ece"),
        ],
        [
            ("loss/nce.py", "import math\nfrom torch.nn.functional import softplus"),
            ("energy/heads.py", "from collections.abc import Callable\nfrom torch import nn"),
            ("calibration/intervals.py", "from calib_ebm.calibration.errors import brier"),
            ("calibration/metrics.py", "import torchmetrics"),
        ],
    ),
    (
        only_commands_speak_and_exit,
        [("learn/module.py", "print('here')"), ("text/hub.py", "import sys\nsys.exit(2)")],
        [("train.py", "print('here')"), ("text/hub.py", "page.print('here')")],
    ),
    (
        nothing_read_is_executed,
        [
            ("learn/resume.py", "import pickle"),
            ("learn/resume.py", "torch.load(path)"),
            ("learn/resume.py", "torch.load(path, weights_only=False)"),
            ("learn/resume.py", "from torch import load"),
            ("learn/resume.py", "trainer.fit(module, ckpt_path=path)"),
            ("text/read.py", "numpy.load(path, allow_pickle=True)"),
            ("text/read.py", "eval(line)"),
        ],
        [
            ("learn/resume.py", "torch.load(path, weights_only=True)"),
            ("learn/resume.py", "trainer.fit(module, ckpt_path=path, weights_only=True)"),
            ("learn/resume.py", "model.eval()"),
        ],
    ),
    (
        nothing_runs_at_import,
        [("text/hub.py", "torch.set_num_threads(1)"), ("text/hub.py", "for x in y:\n    z = x")],
        [("train.py", "if __name__ == '__main__':\n    main()"), ("shapes.py", "BINS = int('20')")],
    ),
    (
        no_long_tail,
        [
            ("text/hub.py", long_function(LONGEST_BODY + 1)),
            ("text/hub.py", "x = 1\n" * (LONGEST_FILE + 1)),
        ],
        [
            ("text/hub.py", long_function(LONGEST_BODY)),
            ("text/hub.py", "x = 1\n" * LONGEST_FILE),
        ],
    ),
    (
        public_names_are_explained,
        [
            ("text/hub.py", "x = 1"),
            ("text/hub.py", "'''The Hub.'''\ndef read():\n    pass"),
            ("text/hub.py", "'''The Hub.'''\nclass Reader:\n    pass"),
        ],
        [("text/hub.py", "'''The Hub.'''\ndef _read():\n    pass")],
    ),
]
CHECKS = [check for check, _, _ in CONTROLS]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_package_passes(check: Check) -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > len(ROOMS)
    complaints = [
        complaint
        for file in files
        for complaint in check(
            file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8")
        )
    ]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize(
    ("check", "place", "source"),
    [(check, *lines) for check, bad, _ in CONTROLS for lines in bad],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_lines_are_caught(check: Check, place: str, source: str) -> None:
    assert check(place, source)


@pytest.mark.parametrize(
    ("check", "place", "source"),
    [(check, *lines) for check, _, good in CONTROLS for lines in good],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_good_lines_pass(check: Check, place: str, source: str) -> None:
    assert check(place, source) == []


def loaded_by(statement: str) -> set[str]:
    """Which of the heavy libraries a fresh process has loaded after the statement."""
    report = f"{statement}\nimport sys\nprint(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run(
        [sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import calib_ebm, calib_ebm.errors, calib_ebm.config_path") == set()
    assert loaded_by("import calib_ebm.loss.nce") == {"torch"}  # the control: loading is noticed


def test_texts_are_read_and_checked_before_torch_is_loaded() -> None:
    assert loaded_by("import calib_ebm.text.load, calib_ebm.learn.early") == set()
    assert loaded_by("import calib_ebm.learn.finished") == set()
    assert "torch" in loaded_by("import calib_ebm.learn.run")  # the control


def test_importing_a_formula_loads_torch_only() -> None:
    formulas = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted(PACKAGE.rglob("*.py"))
        if is_formula(file.relative_to(PACKAGE).as_posix())
    ]
    assert "calib_ebm.loss.nce" in formulas
    assert loaded_by("import " + ", ".join(formulas)) == {"torch"}
