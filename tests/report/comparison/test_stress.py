from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from calib_ebm.report.comparison.find import LeftOut, read_all
from calib_ebm.report.comparison.members import gather, resample
from calib_ebm.report.comparison.sheets import Figure, Sheet
from calib_ebm.report.comparison.shifted import differences_under_stress
from calib_ebm.report.comparison.stress import Set, read_stress_of, stress_section

Folder = Callable[..., Path]
COLUMNS = ["set", "kind", "rate", "folder", "scoring", "calibrator", "n", "metric"]
COLUMNS += ["value", "low", "high", "difference", "difference_low", "difference_high", "paired"]


def row(name: str, kind: str, rate: str, metric: str, value: float, **more: str) -> dict[str, str]:
    cells = dict.fromkeys(COLUMNS, "") | {
        "set": name,
        "kind": kind,
        "rate": rate,
        "scoring": "deterministic",
        "calibrator": "temperature",
        "n": "200",
        "metric": metric,
        "value": repr(value),
        "low": repr(value - 0.02),
        "high": repr(value + 0.02),
    }
    return cells | more


def rows(worse: float) -> list[dict[str, str]]:
    sets = [("clean", "clean", "", 0.05)]
    sets += [(f"typos-{rate}", "typos", str(rate), 0.05 + worse * rate) for rate in (0.2, 0.1)]
    found = [
        row(name, kind, rate, f"{stage}/cal/ece", ece)
        for name, kind, rate, ece in sets
        for stage in ("test", "test_calibrated")
    ]
    found.append(row("imdb.csv", "data", "", "test/cls/acc", 0.9))
    found.append(row("cola", "ood", "", "ood/auroc/energy", 0.8))
    found.append(row("cola", "ood", "", "ood/auroc/entropy", 0.6, low=""))
    found.append(row("typos-0.1", "typos", "0.1", "test/cal/ece", 9.0, scoring="mc_dropout-5"))
    found.append(row("typos-0.1", "typos", "0.1", "test/cal/ece", 9.0, calibrator="vector"))
    return found


def write(folder: Path, cells: list[dict[str, str]]) -> Path:
    path = folder / "evaluations" / "stress.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(cells)
    return path


def test_what_stress_csv_says_of_a_run_s_own_calibrator_and_plain_scoring(
    run_folder: Folder,
) -> None:
    folder = run_folder()
    write(folder, rows(0.5))
    found, broken = read_stress_of(gather(read_all((folder,)).runs, None)[0][0].first)
    assert broken is None
    typos = found[Set("typos", 0.1, "typos-0.1")]
    assert typos["test/cal/ece"] == pytest.approx((0.1, 0.08, 0.12))
    assert found[Set("clean", 0.0, "clean")]["test/cal/ece"][0] == 0.05
    foreign = next(where for where in found if where.kind == "ood")
    # A figure without its interval is not shown.
    assert foreign.rate is None and {*found[foreign]} == {"ood/auroc/energy"}


def test_figures_of_seeds_are_put_together_and_drawn(run_folder: Folder) -> None:
    folders = [run_folder(seed=s) for s in (1, 2)] + [run_folder(energy="hidden", seed=1)]
    for folder, worse in zip(folders, (0.5, 1.5, 0.1), strict=True):
        write(folder, rows(worse))
    tasks, _ = gather(read_all(tuple(folders)).runs, None)
    for runs in tasks[0].members.values():
        for run in runs.values():
            resample(run, 20, 0)
    section, sheets, left_out = stress_section(tasks, ["toy"], 20, 0)
    assert left_out == () and [sheet.slug for sheet in sheets] == ["stress", "out-of-distribution"]
    sets, ood = sheets
    by_set = {(each[0], each[2]): each for each in sets.rows}
    ece = by_set["plain fine-tuning", "typos-0.2"][5]
    assert isinstance(ece, Figure) and ece.value == pytest.approx(0.05 + 1.0 * 0.2)
    assert ece.spread == pytest.approx(0.1 * math.sqrt(2))
    assert [each[2] for each in sets.rows[:3]] == ["clean", "imdb.csv", "typos-0.1"]
    assert by_set["plain fine-tuning", "clean"][3] == 2
    auroc = ood.rows[0][3]
    assert isinstance(auroc, Figure) and auroc.value == pytest.approx(0.8)
    assert ood.rows[0][5] is None
    panels = section.blocks[1].items  # type: ignore[union-attr]
    assert [panel.title for panel in panels] == [  # type: ignore[union-attr]
        "toy: typos, as trained",
        "toy: typos, after calibration",
    ]


@pytest.fixture
def shifted(grid: list[Path], run_folder: Folder) -> list[Path]:
    """Three seeds each of a bad and a good method, measured on typos as well."""
    for run in grid:
        _, energy, seed = run.name.split("-")
        sharp = 6.0 if energy == "none" else 1.5
        # Other texts, the same for both methods.
        like = run_folder(
            energy=energy, seed=int(seed[4:]), sharp=sharp, data_seed=5, name=f"{run.name}-typos"
        )
        shutil.move(like, run / "evaluations" / "typos-0.1-temperature")
        write(run, [row("typos-0.1", "typos", "0.1", "x", 0.1, folder="typos-0.1-temperature")])
    return grid


def sheet_of(runs: list[Path]) -> tuple[Sheet | None, tuple[LeftOut, ...]]:
    tasks, _ = gather(read_all(tuple(runs)).runs, None)
    return differences_under_stress(tasks, 50, 0)


def test_methods_stand_beside_the_baseline_in_pairs_on_each_set(shifted: list[Path]) -> None:
    sheet, left_out = sheet_of(shifted)
    assert sheet is not None and left_out == () and len(sheet.rows) == 1
    method, task, name, seeds, before, after, without_labels, nll, _ = sheet.rows[0]
    assert (method, task, name, seeds) == ("hidden", "toy", "typos-0.1", 3)
    places = [run / "evaluations" / "typos-0.1-temperature" for run in shifted]
    told = [json.loads((place / "metrics.json").read_text()) for place in places]
    plain, hidden = told[:3], told[3:]

    def gap(mine: str, other: str) -> float:
        return fmean(h[mine] - p[other] for h, p in zip(hidden, plain, strict=True))

    for cell, mine, other in (
        (before, "test/cal/ece", "test/cal/ece"),
        (after, "test_calibrated/cal/ece", "test_calibrated/cal/ece"),
        (without_labels, "test/cal/ece", "test_calibrated/cal/ece"),
        (nll, "test/nll", "test/nll"),
    ):
        assert isinstance(cell, Figure) and cell.value == pytest.approx(gap(mine, other), abs=1e-6)
        assert cell.low <= cell.value <= cell.high
    assert isinstance(before, Figure) and before.high < 0


def test_an_evaluation_on_other_texts_or_elsewhere_is_not_compared(shifted: list[Path]) -> None:
    *_, last = shifted
    home = last / "evaluations"
    # Another order of other texts: its ids are not those of the rest.
    (home / "typos-0.1-temperature" / "predictions.parquet").unlink()
    sheet, left_out = sheet_of(shifted)
    assert sheet is not None and sheet.rows[0][3] == 2
    assert [each.folder for each in left_out] == [home / "typos-0.1-temperature"]
    write(last, [row("typos-0.1", "typos", "0.1", "x", 0.1, folder="../../outside")])
    sheet, left_out = sheet_of(shifted)
    assert sheet is not None and sheet.rows[0][3] == 2 and left_out == ()


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.yaml", "- 1"), ("config.yaml", "calibrator: {name: {a: 1}}"), ("metrics.json", "[]")],
)
def test_a_broken_evaluation_is_left_out_and_named(
    shifted: list[Path], file: str, text: str
) -> None:
    place = shifted[-1] / "evaluations" / "typos-0.1-temperature"
    (place / file).write_text(text)
    sheet, left_out = sheet_of(shifted)
    assert sheet is not None and sheet.rows[0][3] == 2
    assert [each.folder for each in left_out] == [place]


def test_an_evaluation_that_is_wrong_in_an_unknown_way_stops_nothing(
    shifted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(folder: Path) -> None:
        raise KeyError(folder)

    monkeypatch.setattr("calib_ebm.report.comparison.shifted.read_run", unreadable)
    sheet, left_out = sheet_of(shifted)
    assert sheet is None and len(left_out) == len(shifted)


def test_a_broken_file_is_named_and_without_one_the_page_says_how_to_make_it(
    run_folder: Folder,
) -> None:
    folder = run_folder()
    tasks, _ = gather(read_all((folder,)).runs, None)
    section, sheets, left_out = stress_section(tasks, ["toy"], 20, 0)
    assert sheets == () and left_out == ()
    assert "calib_ebm.evaluate writes it" in section.blocks[0].text  # type: ignore[union-attr]
    path = write(folder, [])
    path.write_text("set,kind\nclean,clean\n")
    _, _, left_out = stress_section(tasks, ["toy"], 20, 0)
    assert [each.folder for each in left_out] == [path]
