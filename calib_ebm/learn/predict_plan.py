"""What `predict` is asked for: checked before anything is scored, and known again afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from calib_ebm import __version__
from calib_ebm.errors import InputError
from calib_ebm.learn.checked import whole_number
from calib_ebm.learn.finished import listed
from calib_ebm.learn.models import USUAL_TEXT, Model, find_models, have_energy
from calib_ebm.report.parts import Parts, digest_of_file, key_of
from calib_ebm.report.scored import ScoredColumns, ending_of
from calib_ebm.text.inputs import Input, InputRow, Survey, survey

Config = Mapping[str, Any]
FORMAT = 1
LARGE = 64_000_000
"""Bytes of a file whose first reading takes long enough to be announced."""
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Job:
    """What is scored, by what, to where.

    Attributes:
        text: column of the texts.
        text_pair: column of second texts, or None.
        keep: columns that are copied.
        window: texts that are scored together.
        tokens: of a pass; None: as the device likes it.
        found: what the first reading of the input found.
        columns: of the output.
    """

    models: tuple[Model, ...]
    source: Input
    output: Path
    text: str
    text_pair: str | None
    keep: tuple[str, ...]
    window: int
    tokens: int | None
    bf16: bool
    found: Survey
    columns: ScoredColumns

    def rows(self) -> Iterator[InputRow]:
        """The rows of the input, read anew."""
        return self.source.rows(self.text, self.text_pair, self.keep)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All that determines a row's scores, but for its texts."""
        return {
            "calib_ebm": __version__,
            "format": FORMAT,
            "models": [model.digest() for model in self.models],
            "text": self.text,
            "text_pair": self.text_pair,
            "keep": list(self.keep),
            "window": self.window,
            "tokens_per_pass": self.tokens,
            "precision": PRECISIONS[self.bf16],
        }

    @property
    def plan(self) -> dict[str, Any]:
        """All that determines the output."""
        return {**self.recipe, "input": self.found.digest}

    def key(self, digest: str) -> str:
        """Of a part whose rows have this digest."""
        return key_of([self.recipe, str(self.columns.schema()), digest])

    # ------------------------------------------------------------------ what an earlier one left

    @property
    def record(self) -> Path:
        """The small file beside the output that says how it was made."""
        return self.output.with_name(self.output.name + ".json")

    def is_finished(self) -> bool:
        """Whether the output is there, whole and of this very job.

        Raises:
            InputError: when it is there and is something else.
        """
        if not self.output.exists():
            return False
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            before, digest = record["plan"], record["output"]["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            before, digest = None, None
        if before == self.plan and digest == digest_of_file(self.output):
            return True
        if Parts(self.output).plan() == self.plan:
            # Stopped between the output and its record: all parts are there still.
            return False
        if before == self.plan:
            why = "was changed after it was written"
        elif isinstance(before, dict):
            why = f"is there, and was made with {self.what_differs(before)}"
        else:
            why = "is there, and was not written by predict"
        raise InputError(
            f"output={self.output} {why}.",
            "a new file, or one of the very same input, model and settings",
            "Choose another name, or add overwrite=true to replace it.",
        )

    def what_differs(self, before: Mapping[str, Any]) -> str:
        """Names of what another plan has otherwise."""
        plan = self.plan
        names = [name for name in plan if before.get(name) != plan[name]]
        if {"text", "text_pair", "keep", "window"} & {*names}:
            names = [
                name for name in names if name != "input"
            ]  # whose digest is of these columns, in windows
        said = {"models": "model", "input": "content of the input", "calib_ebm": "version"}
        return f"another {' and '.join(said.get(name, name) for name in names) or 'plan'}"

    def is_recipe_of(self, parts: Parts) -> bool:
        """Whether the parts there are were made by the same models, in the same way."""
        before = parts.plan()
        return before is not None and {**before, "input": self.plan["input"]} == self.plan

    def require_same_recipe(self, parts: Parts) -> None:
        """Raise `InputError` where the parts there are were made by another model or otherwise.

        Other texts are no reason: parts whose rows are the same stay, others are made again.
        """
        before = parts.plan()
        if before is None or self.is_recipe_of(parts):
            return
        raise InputError(
            f"{parts.folder} holds what a command that did not finish has scored with "
            f"{self.what_differs({**before, 'input': self.plan['input']})}.",
            "the same model and settings, with which it goes on",
            "Put that right; or add overwrite=true to begin again, or choose another output=.",
        )


# ------------------------------------------------------------------------------ from the settings


def read_job(config: Config, say: Callable[[str], None]) -> Job:
    """Check the settings and read the input once.

    Args:
        config: resolved settings of `conf/predict.yaml`.
        say: takes lines for the person.

    Raises:
        InputError: for whatever a person has to put right.
    """
    window, tokens = whole_number(config, "window"), whole_number(config, "tokens_per_pass")
    whole_number(config, "threads")
    assert window is not None  # shipped with a number
    in_bf16 = _precision(config) != PRECISIONS[0]
    source = Input(Path(str(config["input"])).expanduser(), str(config["delimiter"]))
    output = _output(Path(str(config["output"])).expanduser(), source.path)
    models = find_models(config["run"])
    names = source.names()
    text, text_pair = _text_columns(config, models[0], source, names)
    keep = _kept_columns(config["keep"], names)
    ending = ending_of(output)
    facts = models[0].facts()
    # What keep and the classes are called is checked before all rows are read.
    ScoredColumns(dict.fromkeys(keep, "string"), facts.labels, have_energy(models))
    if source.path.stat().st_size > LARGE:
        say(f"Reading {source.path} once, to find out whether every row can be scored ...")
    check = _for_tsv(source, keep) if ending == ".tsv" else lambda _: None
    found = survey(source.rows(text, text_pair, keep), keep, window, check)
    _require_texts(found, source, text)
    types = source.arrow_types() if ending == ".parquet" else {}
    columns = ScoredColumns(
        found.kinds,
        facts.labels,
        have_energy(models),
        {name: types[name] for name in keep if name in types},
    )
    return Job(
        models,
        source,
        output,
        text,
        text_pair,
        keep,
        window,
        tokens,
        in_bf16,
        found,
        columns,
    )


def _precision(config: Config) -> str:
    if config["precision"] not in PRECISIONS:
        raise InputError(
            f"precision is {config['precision']!r}.", " or ".join(PRECISIONS), "Correct it."
        )
    return str(config["precision"])


def _output(output: Path, source: Path) -> Path:
    ending_of(output)
    if output.is_dir():
        raise InputError(f"output={output} is a folder.", "a file", "Give a file in it.")
    if output.exists() and output.samefile(source):
        raise InputError(
            f"output and input are the same file, {source}.",
            "another file for the scores",
            "Name it e.g. " + f"output={output.with_name('scored' + output.suffix)}.",
        )
    return output


def _text_columns(
    config: Config, model: Model, source: Input, names: Sequence[str]
) -> tuple[str, str | None]:
    """The columns of texts and second texts: as given, else as the run's own data call them."""
    known = model.columns()
    pairs = known[0][1] is not None
    if config["text"] is not None:
        pair = config["text_pair"]
        pair = next((p for t, p in known if pair is None and t == config["text"]), pair)
        text = str(config["text"])
    else:
        usual = [] if pairs else [(name, None) for name in USUAL_TEXT]
        fitting = [
            (text, pair)
            for text, pair in [*known, *usual]
            if text in names and (pair is None or pair in names)
        ]
        if not fitting:
            tried = dict.fromkeys(" and ".join(filter(None, each)) for each in [*known, *usual])
            raise InputError(
                f"{source.path} has no column {' or '.join(tried)}, and text= is not given.",
                f"one of the file's columns: {', '.join(names) or 'it has none'}",
                "Set text= (and text_pair= for pairs) to the column with the texts.",
            )
        text, pair = fitting[0]
        pair = config["text_pair"] or pair
    if pairs and pair is None:
        raise InputError(
            "The model was trained on pairs, and of the column of second texts nothing is said.",
            f"one of the file's columns: {', '.join(names)}",
            "Set text_pair=.",
        )
    return text, None if pair is None else str(pair)


def _kept_columns(given: Any, names: Sequence[str]) -> tuple[str, ...]:
    if given is None:
        return ("id",) if "id" in names else ()
    keep: list[str] = []
    for item in listed(given):
        found = [item] if item in names else [n for n in names if fnmatchcase(n, item)]
        if not found:
            raise InputError(
                f"keep={item} is no column of the input.",
                f"columns of the file: {', '.join(names)}",
                "Correct it, or leave it out.",
            )
        keep += found
    return tuple(dict.fromkeys(keep))


def _for_tsv(source: Input, keep: Sequence[str]) -> Callable[[InputRow], None]:
    """A check of what a tab-separated file cannot hold."""

    def check(row: InputRow) -> None:
        for name, cell in zip(keep, row.kept, strict=True):
            if isinstance(cell, str) and any(sign in cell for sign in "\t\r\n"):
                raise InputError(
                    f"{source.path}, {source.unit} {row.number}: column {name!r} holds a tab or a "
                    "line end.",
                    "for a tsv file, cells without them",
                    "Write another kind of file, e.g. with the ending .csv, or leave it out of "
                    "keep=.",
                )

    return check


def _require_texts(found: Survey, source: Input, text: str) -> None:
    if found.rows == found.empty:
        what = "no rows" if not found.rows else f"no texts in its column {text!r}"
        raise InputError(
            f"input={source.path} holds {what}.", "a file with texts", "Check the file, and text=."
        )
