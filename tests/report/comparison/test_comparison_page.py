from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.errors import InputError
from calib_ebm.report.comparison.page import name_of, write_comparison

Folder = Callable[..., Path]
NASTY = "<script>alert(1)</script> \"quotes\" 'and' $x_1$ & </title></svg> [bold]"


class Reader(HTMLParser):
    """Tags, attributes and text, as a browser would take them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.best: list[str] = []
        self._style = False
        self._best = False
        self.feed(page)
        self.close()
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._style = tag == "style"
        self._best = dict(attrs).get("class") == "matter best"

    def handle_endtag(self, tag: str) -> None:
        self._style = self._best = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data
        if self._best:
            self.best.append(data)

    def values(self, name: str) -> list[str]:
        return [value for one, value in self.attributes if one == name]


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., tuple[Reader, Path]]:
    def compare(*folders: Path, **more: Any) -> tuple[Reader, Path]:
        given = [str(folder) for folder in folders]
        path, _ = write_comparison(given, tmp_path / "out", resamples=50, **more)
        return Reader(path.read_text(encoding="utf-8")), path.parent

    return compare


Compared = Callable[..., tuple[Reader, Path]]


def check_whole(page: Reader) -> None:
    """Nothing from elsewhere, nothing that runs, and no link into nowhere."""
    forbidden = {"script", "img", "link", "iframe", "object", "base", "form", "embed", "image"}
    assert not forbidden & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    ids = page.values("id")
    assert len({*ids}) == len(ids)
    assert {target[1:] for target in page.values("href")} <= {*ids}
    assert all(target.startswith("#") for target in page.values("href"))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert policy in " ".join(page.values("content"))
    assert not any("url(" in value and "url(#" not in value for _, value in page.attributes)


def test_a_page_needs_nothing_but_itself_and_says_what_was_found(
    grid: list[Path], compared: Compared
) -> None:
    page, out = compared(*grid)
    check_whole(page)
    assert page.tags.count("section") == 12
    # Labels, 4 of reliability, risk, course, pair, histogram, 2 of the energy.
    assert page.tags.count("svg") == page.values("role").count("img") == 11
    for text in (
        "2 methods on toy",
        "6 runs · 1 task · seeds 1, 2, 3 · baseline: plain fine-tuning",
        "is more than chance",
        "3.0% (3.0 to 3.0) at step 1, 9.0% (9.0 to 9.0) at step 3",
        "plain fine-tuning, seed 1, as trained",
        "some words dev-",
        "Nothing was left out.",
        "± ",
        "floor ",
    ):
        assert text in page.text, text
    assert "Of one seed only" not in page.text
    assert len(page.best) >= 2  # ECE and NLL as trained
    assert len(list((out / "tables").iterdir())) == 8 * 3


WORDS = {"Method", "Task", "Figure", "Sure", "Worth, labels", "Texts it would take", "Settings"}
"""Columns of the tables that hold no numbers, or a word here and there."""


def test_what_reads_a_csv_finds_numbers_in_it(grid: list[Path], compared: Compared) -> None:
    _, out = compared(*grid)
    found = {}
    for path in (out / "tables").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.DictReader(file) for cell in row.items()]
        numbers = [value for title, value in cells if title not in WORDS and value]
        found[path.stem] = [float(value) for value in numbers if value != "true"]
    assert {name for name, numbers in found.items() if not numbers} == {"settings"}
    assert len(found) == 8


def test_what_comes_from_data_is_shown_and_never_run(
    run_folder: Folder, compared: Compared
) -> None:
    labels = {"labels": [NASTY, "b"]}
    task = {"task": NASTY, "words": NASTY, "run": labels | {"task": NASTY}}
    plain = run_folder(name="plain 'a' \"b\" <i>", **task)
    hidden = run_folder(name="hidden", energy="hidden", further={"trainer.note": "plain"}, **task)
    more = run_folder(name="more", energy="hidden", further={"trainer.note": NASTY}, **task)
    lost = run_folder(name="<script>x", **task)
    (lost / "predictions.parquet").unlink()
    page, out = compared(plain, hidden, more, lost)
    check_whole(page)
    assert page.text.count("<script>alert(1)</script>") > 20 and NASTY in page.text
    assert "note=<script>" in page.text  # a method's name
    assert "<script>x" in page.text  # a folder's name
    raw = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in raw and "<i>" not in raw
    for file in (out / "tables").glob("*.md"):
        assert "<script" not in file.read_text(encoding="utf-8")
    assert re.fullmatch(r"[a-z0-9-]+", "".join(f.stem for f in (out / "tables").iterdir()))


def test_the_reader_of_these_tests_would_see_a_script() -> None:
    assert "script" in Reader("<p><script>alert(1)</script>").tags
    with pytest.raises(AssertionError):
        check_whole(Reader("<p><script>alert(1)</script>"))
    with pytest.raises(AssertionError):
        check_whole(Reader('<p onclick="x()">'))


def test_nearly_equal_methods_have_nothing_in_bold(run_folder: Folder, compared: Compared) -> None:
    folders = [run_folder(seed=s, sharp=1.0) for s in (1, 2, 3)]
    folders += [run_folder(energy="hidden", seed=s, sharp=1.01) for s in (1, 2, 3)]
    page, _ = compared(*folders)
    assert page.best == []
    assert "cannot be told from chance" in page.text or "has the lowest NLL" in page.text


def test_what_was_left_out_and_what_is_missing_is_said(
    run_folder: Folder, compared: Compared
) -> None:
    folders = [run_folder(seed=s) for s in (1, 2)] + [run_folder(energy="hidden", seed=2)]
    broken = run_folder(energy="hidden", seed=3)
    (broken / "metrics.json").write_text("[]")
    page, out = compared(*folders, broken)
    assert "1 folder left out." in page.text and str(broken) in page.text
    assert "does not hold names with values" in page.text
    assert "Of one seed only: hidden on toy." in page.text
    assert re.search(r"toy ?hidden ?seed 1", page.text)
    manifest = json.loads((out / "comparison.json").read_text())
    assert [each["folder"] for each in manifest["left_out"]] == [str(broken)]
    assert len(manifest["runs"]) == 3 and manifest["baseline"] == "plain fine-tuning"


def test_plain_runs_alone_have_no_energies_and_no_pairs(
    run_folder: Folder, compared: Compared
) -> None:
    folder = run_folder()
    (folder / "history.csv").unlink()
    page, _ = compared(folder)
    check_whole(page)
    assert page.text.count("None of these runs has an energy") == 2
    assert "no two runs can be paired" in page.text
    assert "nothing is compared" in page.text
    assert "No run's history.csv has a top-label ECE" in page.text
    assert "One method on toy" in page.text and "seed 1 only" in page.text


def test_without_plain_fine_tuning_there_is_no_baseline(
    run_folder: Folder, compared: Compared
) -> None:
    page, _ = compared(run_folder(energy="hidden"), run_folder(energy="scalar"))
    assert "no baseline" in page.text and "None of these runs is plain fine-tuning" in page.text


def test_the_page_is_made_again_byte_for_byte_and_old_tables_go(
    run_folder: Folder, compared: Compared
) -> None:
    a, b = run_folder(task="a"), run_folder(task="b")
    _, out = compared(a, b)
    first = (out / "report.html").read_bytes()
    compared(a, b)
    assert (out / "report.html").read_bytes() == first
    assert (out / "tables" / "methods-b.csv").exists()
    (out / "tables" / "mine.csv").write_text("keep")
    compared(a)
    assert not (out / "tables" / "methods-b.csv").exists()
    assert (out / "tables" / "mine.csv").read_text() == "keep"


def test_a_stranger_s_manifest_removes_nothing_elsewhere(
    run_folder: Folder, compared: Compared, tmp_path: Path
) -> None:
    folder = run_folder()
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.csv").write_text("keep")
    (out / "comparison.json").write_text('{"tables": ["../../precious.csv", 3]}')
    compared(folder)
    assert (tmp_path / "precious.csv").read_text() == "keep"


def test_what_cannot_be_written_or_compared_is_refused(run_folder: Folder, tmp_path: Path) -> None:
    good, bad = run_folder(seed=1), run_folder(seed=2)
    before = (good / "run.json").read_bytes()
    with pytest.raises(InputError, match="a run's folder"):
        write_comparison([str(good)], good)
    assert (good / "run.json").read_bytes() == before and not (good / "tables").exists()
    (bad / "metrics.json").unlink()
    with pytest.raises(InputError, match="None of 1 folder can be compared") as refused:
        write_comparison([str(bad)], tmp_path / "out")
    assert "has no metrics.json" in refused.value.given and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="baseline='x'"):
        write_comparison([str(good)], tmp_path / "out", baseline="x")
    with pytest.raises(InputError, match="resamples is 1"):
        write_comparison([str(good)], tmp_path / "out", resamples=1)


def test_each_list_of_patterns_has_a_folder_of_its_own() -> None:
    lists = [["runs/*"], ["runs/a", "runs/b"], ["runs/a-runs/b"], ["runs/" + "x" * 60 + "1"]]
    lists += [["runs/" + "x" * 60 + "2"]]
    assert len({name_of(each) for each in lists}) == len(lists)
    assert name_of(["runs/*"]) == name_of(["runs/*"]) == "runs"


def test_a_method_alone_is_not_called_the_lowest(run_folder: Folder, compared: Compared) -> None:
    page, _ = compared(run_folder(seed=1))
    assert "alone is measured: top-label ECE" in page.text and "has the lowest" not in page.text
    page, _ = compared(run_folder(seed=2), run_folder(energy="hidden", seed=2))
    assert "alone is measured" not in page.text
