"""report.html: one page that needs nothing but itself, made from a run folder's files alone."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from calib_ebm.durable import write_text
from calib_ebm.report.blocks import Page
from calib_ebm.report.files import REPORT, RunFolder, read_run
from calib_ebm.report.sections import (
    analysis,
    energies,
    headline,
    making,
    measured,
    noise,
    reliability,
    stress,
    training,
    truth,
)


def write_report(folder: Path | str) -> Path:
    """Write report.html into a finished run's folder, from its files alone.

    Returns:
        The page's path.

    Raises:
        InputError: `folder` is no run folder, the run has not finished, or a file is broken.
    """
    run = read_run(folder)
    path = run.path / REPORT
    write_text(path, render(compose(run)))
    return path


def compose(run: RunFolder) -> Page:
    """What the page of one run says, in the order in which it says it."""
    about_truth, about_energy = truth.section(run), analysis.section(run)
    about_stress = stress.section(run)
    return Page(
        title=headline.title(run),
        kicker=headline.kicker(run),
        summary=headline.summary(run),
        tiles=headline.tiles(run),
        sections=(
            measured.section(run),
            *((about_stress,) if about_stress else ()),
            reliability.section(run),
            training.section(run),
            energies.section(run),
            *((about_energy,) if about_energy else ()),
            *((about_truth,) if about_truth else ()),
            noise.section(run),
            making.section(run),
        ),
    )


def render(page: Page) -> str:
    """The page as HTML. What came from data is escaped; only the drawings are markup already."""
    home = files("calib_ebm.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(home.joinpath("page.html").read_text(encoding="utf-8"))
    style = home.joinpath("page.css").read_text(encoding="utf-8")
    return template.render(page=page, style=style) + "\n"
