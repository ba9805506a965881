"""The time until a command does something, each command in a process of its own.

--help and a refused setting against an empty Python; the first step of the embedded task, whose
noise is there already, against the bare imports of what it trains with; texts found encoded
against texts encoded anew. Ratios here are ours by theirs, except for the texts.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.rows import Options, Row, compared, in_turn

COMMANDS = ("train", "evaluate", "report", "tune_noise", "draw_noise")
IMPORTS = "import torch, transformers, pytorch_lightning, torchmetrics"
EMPTY = "an empty Python (ratio: ours by theirs)"
BARE = "the imports of torch, transformers, pytorch_lightning, torchmetrics (ratio: ours by theirs)"
ANEW = "the texts encoded anew, with the same tokenizer"
FIRST_STEP = "training: step 1 of"
SETTINGS = ("trainer=cpu", "trainer.max_steps=10", "noise.tune.max_steps=20")
# The embedded task as it is, but for the tuning, which is not measured here; ten steps, each said.
REFUSED = {
    "no such choice": ("energy=nonne",),
    "no such setting": ("trainer.max_step=3",),
    "a word for a number": ("seed=one",),
    "no such file": ("task=csv", "task.train=nowhere.csv"),
    "no such column": ("task=csv", "task.train=mine.csv", "task.text=review"),
}


def measure(options: Options) -> Iterator[Row]:
    """Rows of this part."""
    rounds = options.rounds or (2 if options.short else 7)
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        home = Path(folder)
        (home / "mine.csv").write_text("text,label\n" + "fine,good\nslow,bad\n" * 20)
        yield from _said_at_once(home, rounds, options)
        yield from _first_step(home, rounds, options)
        yield from _texts(home, rounds, options)


def _said_at_once(home: Path, rounds: int, options: Options) -> list[Row]:
    cases = {f"{command} --help": (command, "--help") for command in COMMANDS}
    cases |= {what: ("train", *words) for what, words in REFUSED.items()}
    cases = {name: words for name, words in cases.items() if options.takes(name)}
    work: dict[str, Callable[[], object]] = {
        name: _typed(home, words, 0 if "--help" in words else 2) for name, words in cases.items()
    }
    if not work:
        return []
    seconds = in_turn({"empty": lambda: _python(home, "-c", "pass"), **work}, rounds)
    return [
        compared(
            "startup",
            name,
            seconds[name],
            seconds["empty"],
            note=EMPTY,
            wanted="ours under 1.5 s",
            inverse=True,
        )
        for name in cases
    ]


def _python(home: Path, *words: str, code: int = 0) -> None:
    done = subprocess.run(
        [sys.executable, *words], cwd=home, env=_environment(), capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr.decode()[-400:]


def _typed(home: Path, words: Sequence[str], code: int) -> Callable[[], None]:
    command, *settings = words
    return lambda: _python(home, "-m", f"calib_ebm.{command}", *settings, code=code)


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def _first_step(home: Path, rounds: int, options: Options) -> list[Row]:
    case = "first step, noise found"
    if not options.takes(case):
        return []
    rounds = min(rounds, 5)
    runs = iter(range(rounds + 2))
    start = time.perf_counter()
    _until_first_step(home, next(runs))
    with_noise = time.perf_counter() - start
    seconds = in_turn(
        {
            "ours": lambda: _until_first_step(home, next(runs)),
            "theirs": lambda: _python(home, "-c", IMPORTS),
        },
        rounds,
    )
    return [
        compared(
            "startup",
            case,
            seconds["ours"],
            seconds["theirs"],
            note=BARE,
            wanted="ours under 15 s",
            inverse=True,
            further={"first run, with 20 steps of tuning and the drawing": with_noise},
        )
    ]


def _until_first_step(home: Path, run: int) -> None:
    words = (*SETTINGS, f"run_dir=run-{run}", "cache_dir=cache")
    process = subprocess.Popen(
        [sys.executable, "-m", "calib_ebm.train", *words],
        cwd=home,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        if line.startswith(FIRST_STEP):
            break
    process.kill()
    process.wait()
    assert any(line.startswith(FIRST_STEP) for line in heard), "".join(heard)


def _texts(home: Path, rounds: int, options: Options) -> list[Row]:
    from calib_ebm.shapes import Example
    from calib_ebm.tokens.kept import encode_kept
    from calib_ebm.tokens.tokenizer import (
        TextTokenizer,
        encode_examples,
        load_tokenizer,
        train_tokenizer,
    )

    chance = random.Random(1)  # noqa: S311  (lengths and words, no secrets)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(20_000)]
    if options.encoder is not None:
        hf = load_tokenizer(str(options.encoder))
    else:
        hf = train_tokenizer([" ".join(words)], 8_000)
    tokenizer, rows = TextTokenizer(hf, 128), []
    # As many as SST-2 has phrases, and MNLI pairs, and of their mean lengths in words.
    sizes = {"67,349 short texts": (67_349, 9, 0), "392,702 pairs": (392_702, 20, 10)}
    for case, (count, first, second) in sizes.items():
        if not options.takes(case) or (options.short and second):
            continue
        texts = [
            Example(f"train-{n}", _text(chance, words, first), _text(chance, words, second), 0)
            for n in range(count // (20 if options.short else 1))
        ]
        worth = 1 if options.short else 1_000_000
        encode_kept(tokenizer, texts, home / "tokens", worth=worth)
        found = lambda: encode_kept(tokenizer, texts, home / "tokens", worth=worth)  # noqa: B023, E731
        anew = lambda: encode_examples(tokenizer, texts)  # noqa: B023, E731
        seconds = in_turn({"ours": found, "theirs": anew}, min(rounds, 3), warm_up=0)
        rows.append(compared("startup", case, seconds["ours"], seconds["theirs"], note=ANEW))
    return rows


def _text(chance: random.Random, words: Sequence[str], mean: int) -> str | None:
    if not mean:
        return None
    return " ".join(chance.choices(words, k=max(1, round(chance.gauss(mean, mean / 3)))))
