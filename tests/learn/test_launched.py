"""Every stage on two processes that a launcher has started: the numbers of one, and a sudden death.

Each command costs seconds, so that tests share what they run.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from calib_ebm.report.files import read_metrics, read_predictions

# No dropout: its masks depend on the rank. So small a norm that each gradient is cut.
STILL = (
    "encoder.small.dropout=0",
    "noise.small.dropout=0",
    "energy=scalar",
    "energy.dropout=0",
    "optim.lr=1e-3",
    "trainer.gradient_clip_val=0.1",
    "trainer.max_steps=24",
    "trainer.checkpoint_every=2",
)
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node=2")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def say(command: str, *words: object, launched: bool = False, cwd: Path) -> str:
    """Give a command, in one process or under torchrun; what it said."""
    launcher = (*TORCHRUN, f"--master_port={free_port()}") if launched else ()
    done = subprocess.run(
        [sys.executable, *launcher, "-m", f"calib_ebm.{command}", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=3000,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    assert "GPU available" not in done.stderr, "Lightning speaks"
    return done.stdout


def trained(home: Path, name: str, *words: str, launched: bool = False) -> Path:
    places = (f"run_dir={home / name}", f"cache_dir={home / f'cache-{name}'}")
    said = say("train", *words, *places, launched=launched, cwd=home)
    assert said.count("run folder:") == 1, "one process speaks"
    return home / name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launched")


@pytest.fixture(scope="module")
def still(tiny: tuple[str, ...]) -> tuple[str, ...]:
    return (*(word for word in tiny if not word.startswith("trainer=")), *STILL)


@pytest.fixture(scope="module")
def one(home: Path, still: tuple[str, ...]) -> Path:
    """A run in one process."""
    return trained(home, "one", *still, "trainer=cpu")


@pytest.fixture(scope="module")
def two(home: Path, still: tuple[str, ...]) -> Path:
    """The same on two, each stage shared: it has a cache of its own."""
    return trained(home, "two", *still, "trainer=ddp_cpu", launched=True)


def assert_same_numbers(ours: Path, theirs: Path) -> None:
    found, expected = read_metrics(ours), read_metrics(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert math.isclose(found[name], value, rel_tol=1e-3, abs_tol=1e-3), name
    tables = [read_predictions(folder) for folder in (ours, theirs)]
    assert tables[0].ids == tables[1].ids and len({*tables[0].ids}) == len(tables[0].ids)
    assert np.abs(tables[0].logits_NC - tables[1].logits_NC).max() < 1e-4


def noise_of(run: Path) -> list[bytes]:
    shards = sorted((run.parent / f"cache-{run.name}" / "noise").glob("*/*.arrow"))
    return [shard.read_bytes() for shard in shards]


def test_tuning_drawing_training_and_measuring_are_those_of_one(one: Path, two: Path) -> None:
    assert_same_numbers(two, one)
    assert noise_of(two) == noise_of(one) != [], "no noise text twice, and the same"
    facts = [json.loads((run / "run.json").read_text()) for run in (two, one)]
    ours, theirs = (each["noise_lm"] for each in facts)
    assert ours["digest"] == theirs["digest"]
    assert ours["tokens"] == theirs["tokens"]
    assert math.isclose(ours["perplexity"], theirs["perplexity"], rel_tol=1e-5)
    # Each process has tuned a half: sums of floats come in another order.
    weights = [next(r.parent.glob(f"cache-{r.name}/noise_lm/*/*.safetensors")) for r in (one, two)]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_evaluating_and_predicting_are_those_of_one(home: Path, one: Path) -> None:
    (home / "new.csv").write_text("text,n\n" + "".join(f"a b c{n},{n}\n" for n in range(21)))
    for name, launched in (("alone", False), ("shared", True)):
        asked = ("corrupt=tokens:0.3", f"out={home / name}")
        said = say("evaluate", f"run={one}", *asked, launched=launched, cwd=home)
        assert said.count("the tables: stress.csv") == 1, "one process speaks"
        places = (f"input={home / 'new.csv'}", f"output={home / name}.csv")
        say("predict", f"run={one}", *places, "text=text", "keep=n", launched=launched, cwd=home)
    assert_same_numbers(home / "shared", home / "alone")
    assert (home / "shared.csv").read_text() == (home / "alone.csv").read_text()


def test_srun_s_processes_share_the_noise(home: Path, one: Path, still: tuple[str, ...]) -> None:
    cache = home / "cache-srun"
    port, words = str(free_port()), ("trainer=ddp_cpu", f"cache_dir={cache}")
    of_srun = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "draw",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": port,
    }
    command = [sys.executable, "-m", "calib_ebm.draw_noise", *still, *words]
    ranks = [
        subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, **of_srun, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=3000)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert "noise around training texts" in said[0] and not said[1]
    assert noise_of(home / "srun") == noise_of(one)


def copies_of(pid: int) -> list[int]:
    """Processes that a process has started, of our command."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ours = [child for child in found if "calib_ebm" in Path(f"/proc/{child}/cmdline").read_text()]
    return [int(child) for child in ours]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_one_that_dies_is_named_and_the_run_goes_on_alone(
    home: Path, one: Path, still: tuple[str, ...]
) -> None:
    """With weights in shards, whose checkpoint is whole; and nobody is left behind."""
    run = home / "died"
    places = (f"run_dir={run}", f"cache_dir={home / 'cache-one'}")
    command = [sys.executable, "-m", "calib_ebm.train", *still, *places]
    first = subprocess.Popen(
        [*command, "trainer=fsdp_cpu"], cwd=home, stderr=subprocess.PIPE, text=True
    )
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert first.poll() is None, "it has not come to training"
        time.sleep(0.01)
    (copy,) = copies_of(first.pid)
    os.kill(copy, signal.SIGKILL)
    assert first.stderr is not None
    said = " ".join(first.stderr.read().split())
    assert first.wait(3000) == 3
    assert "Process 1 of 0 to 1 was killed by signal 9." in said
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert "Going on at step" in say("train", *still, *places, "trainer=cpu", cwd=home)
    assert_same_numbers(run, one)


def test_what_is_wrong_with_a_command_is_said_once_under_torchrun(
    home: Path, still: tuple[str, ...]
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    port = f"--master-port={free_port()}"
    done = subprocess.run(
        [*torchrun, port, "-m", "calib_ebm.train", *still, "trainer=ddp_cpu", "loss.nce_weight=-1"],
        capture_output=True,
        text=True,
        cwd=home,
    )
    assert done.returncode != 0
    assert done.stderr.count("loss.nce_weight is -1.0.") == 1


def test_processes_that_would_each_train_alone_are_refused(
    home: Path, still: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "calib_ebm.train", *still, "trainer=cpu", f"run_dir={home / 'no'}"],
        env={**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        cwd=home,
    )
    assert done.returncode == 2
    assert "2 processes were started, and trainer.strategy=auto trains in one." in done.stderr
    assert not (home / "no").exists()
