from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from calib_ebm.report.console import summary_table
from calib_ebm.report.files import read_run

MakeRun = Callable[..., Path]


def printed(run: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(summary_table(run))  # type: ignore[arg-type] # a folder or a run
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("energy", ["none", "sharp_hidden"])
def test_the_table_fits_eighty_columns_and_cuts_nothing(make_run: MakeRun, energy: str) -> None:
    folder = make_run(energy=energy, embedded=True)
    text = printed(folder)
    assert max(len(line) for line in text.splitlines()) <= 80
    for cell in ("81.2% [65.0, 97.5]", "2.9%, p = 0.412", "0.542 [0.434, 0.651]", "NLL, nats"):
        assert cell in text
    assert printed(read_run(folder)) == text


def test_square_brackets_in_the_data_are_no_markup(make_run: MakeRun, nasty: str) -> None:
    text = printed(make_run(nasty=True), width=400)
    # The title is broken over lines and centred; its words are all there.
    assert nasty in " ".join(text.split())
