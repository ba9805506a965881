"""Texts of another task, which a model was not made for: what is out of distribution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calib_ebm.errors import InputError
from calib_ebm.shapes import Example
from calib_ebm.text.files import read_set
from calib_ebm.text.glue import GLUE, glue_task, read_glue

Found = tuple[str, tuple[Example, ...], tuple[str, ...]]
"""A name for the set, its texts (each with the label -1), and what was left out."""


def read_other_task(given: str, columns: Mapping[str, str | None]) -> Found:
    """Read texts without their labels.

    Args:
        given: a csv, tsv, jsonl or Parquet file; or a task of GLUE, whose dev set is taken from
            the Hub (`cola`) or from a folder of the classic download (`cola:GLUE/CoLA`).
        columns: names of a file's columns `text` and `text_pair` (or None).

    Raises:
        InputError: when it is none of these, and for all that a file can have wrong.
    """
    name, _, folder = given.partition(":")
    path = Path(given).expanduser()
    if name in GLUE and not path.exists():
        task = glue_task(name)
        if folder:
            dev, notes = read_glue(task, Path(folder).expanduser())["dev"]
        else:
            from calib_ebm.text.hub import read_hub

            try:
                dev, notes = read_hub(task)["dev"]
            except InputError as error:
                # The advice for a run's own data, data_dir=, would be wrong here.
                raise InputError(
                    error.given, error.allowed, f"Name its folder: ood={name}:GLUE/{task.folder}."
                ) from error
        # Ids of a run's own texts begin as those of every dev set do.
        return name, tuple(e._replace(id=f"ood-{e.id}", label=-1) for e in dev), notes
    if not path.is_file():
        raise InputError(
            f"ood={given} is {'a folder' if path.is_dir() else 'not there'}.",
            f"a csv, tsv, jsonl or parquet file, or one of {', '.join(GLUE)}, with a colon and its "
            "folder where it is not to come from the Hub",
            "Write e.g. ood=other.csv or ood=cola:GLUE/CoLA.",
        )
    examples, notes = read_set(path, {**columns, "label": None}, (), setting="ood")
    return path.stem, examples, notes
