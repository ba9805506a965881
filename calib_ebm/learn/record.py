"""run.json: what a run is, what it was made with and what each stage cost."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calib_ebm.durable import write_json
from calib_ebm.names import RUN

PACKAGES = (
    "calib-ebm",
    "torch",
    "pytorch-lightning",
    "transformers",
    "tokenizers",
    "datasets",
    "torchmetrics",
    "hydra-core",
    "numpy",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose change may change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Commit of the checkout that this code lies in, `+changes` if it was changed; else None."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603  (words of ours, no shell)
        ["git", "-C", str(folder), *words],  # noqa: S607  (whichever git the person uses)
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def command_line() -> str:
    """The command as it was typed, as far as Python knows.

    A launcher's worker is started by another program and has our own first word: the file of the
    command, which Python writes there for `python -m`.
    """
    main, typed = sys.modules.get("__main__"), Path(sys.argv[0])
    if typed.parent == Path(__file__).parents[1] and typed.suffix == ".py":
        return shlex.join(["python", "-m", f"calib_ebm.{typed.stem}", *sys.argv[1:]])
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


class RunRecorder:
    """Keeps run.json up to date while a run goes on.

    Stages that an earlier part of the run finished keep what they cost; a stage done in parts adds
    up.

    Args:
        folder: the run's folder.
        active: False on ranks other than the first, which write nothing.
    """

    def __init__(self, folder: Path, active: bool = True) -> None:
        self.path = folder / RUN
        self.active = active
        self.facts: dict[str, Any] = {"stages": {}}
        if self.path.exists():
            self.facts |= _facts_there(self.path)

    def set(self, **facts: Any) -> None:
        """Set facts and write the file."""
        self.facts |= facts
        if self.active:
            write_json(self.path, self.facts)

    def note(self, *sentences: str) -> None:
        """Add sentences for the person, each once."""
        notes = list(self.facts.get("notes", []))
        self.set(notes=notes + [s for s in sentences if s and s not in notes])

    @contextmanager
    def stage(self, name: str, earlier: float = 0.0) -> Iterator[dict[str, Any]]:
        """Measure a stage; set `skipped` in what is yielded when its product was already there.

        Beside the seconds stand those that processors spent on this process: on a machine that is
        shared they say better what a stage costs.

        Args:
            name: of the stage.
            earlier: seconds that it has already taken.
        """
        entry: dict[str, Any] = {"skipped": False}
        reset_peak_memory()
        start, cpu_start = time.perf_counter(), time.process_time()
        try:
            yield entry
        finally:
            before: Mapping[str, Any] = self.facts["stages"].get(name, {})
            seconds = time.perf_counter() - start + earlier
            cpu = time.process_time() - cpu_start
            if not entry["skipped"]:
                seconds += before.get("seconds", 0.0)
                cpu += before.get("cpu_seconds", 0.0)
            if not (entry["skipped"] and before):
                entry |= {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3)}
                entry["peak_memory_mb"] = round(
                    max(peak_memory_mb(), before.get("peak_memory_mb", 0.0)), 1
                )
                self.set(stages={**self.facts["stages"], name: entry})


def say_and_record(
    recorder: RunRecorder | None, say: Callable[[str], None], *sentences: str
) -> None:
    """Sentences for who waits now and, where there is a run, for who reads it later."""
    if recorder is not None:
        recorder.note(*sentences)
    for sentence in sentences:
        say(f"note: {sentence}")


def _facts_there(path: Path) -> dict[str, Any]:
    """What an earlier part of the run noted; nothing when a hand or a disk has broken the file."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and isinstance(facts.get("stages"), dict) else {}


def reset_peak_memory() -> None:
    """Begin a new measurement of peak memory, where the system allows it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        # Elsewhere than on Linux the peak is that of the process so far.
        return


def peak_memory_mb() -> float:
    """Peak memory since the last reset, in MiB: the accelerator's, or else the process's."""
    import torch

    # There may be a GPU, and the work be done on the CPU.
    if torch.cuda.is_available() and (on_gpu := torch.cuda.max_memory_allocated()):
        return on_gpu / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
