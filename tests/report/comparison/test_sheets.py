from __future__ import annotations

import csv
import io
import re

import pytest

from calib_ebm.report.comparison.sheets import Amount, Entry, Figure, Sheet

NASTY = '<script>alert(1)</script> | 50% of {a_b} & $x$ #1 "q" \\ ~^ *b* [l](u)\nline'


def sheet(*rows: tuple[Entry, ...], head: tuple[str, ...] = ("Method", "NLL")) -> Sheet:
    return Sheet("slug", "A caption.", head, rows)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_csv_has_every_number_unrounded() -> None:
    change = Figure(-0.1 / 3, -0.05, 0.01, "points")
    full = Figure(1 / 3, 0.3, 0.4, "%", 0.01, change, 0.02, None, True)
    rows = read(sheet(("a", full), ("b", Figure(0.5, 0.4, 0.6)), ("c", None)).csv())
    assert [*rows[0]] == [
        "Method",
        "NLL",
        "NLL low",
        "NLL high",
        "NLL spread",
        "NLL change",
        "NLL change low",
        "NLL change high",
        "NLL floor",
        "NLL best",
    ]
    assert float(rows[0]["NLL"]) == 1 / 3 and float(rows[0]["NLL change"]) == -0.1 / 3
    assert rows[0]["NLL best"] == "true" and rows[1]["NLL best"] == ""
    assert float(rows[1]["NLL high"]) == 0.6
    assert {*rows[2].values()} == {"c", ""}


def test_words_numbers_and_costs_in_a_csv() -> None:
    head = ("Method", "Seeds", "Seconds", "Takes")
    rows = read(
        sheet(("a", 3, Amount(12.5, 0.5), "more seeds"), ("b", 1, None, 9), head=head).csv()
    )
    assert rows[0] == {
        "Method": "a",
        "Seeds": "3",
        "Seconds": "12.5",
        "Seconds spread": "0.5",
        "Takes": "more seeds",
    }
    assert (rows[1]["Seconds"], rows[1]["Takes"]) == ("", "9")


@pytest.mark.parametrize("text", [NASTY, "a,b", 'say "hi"', "line\nbreak", " blanks ", "ü ∆"])
def test_any_text_comes_back_from_the_csv(text: str) -> None:
    assert read(sheet((text, None)).csv())[0]["Method"] == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_what_a_spreadsheet_would_run_begins_with_an_apostrophe(text: str) -> None:
    assert read(sheet((text, None)).csv())[0]["Method"] == f"'{text}"
    # The control: a number may be negative.
    assert read(sheet(("a", Figure(-1.0, -2.0, 0.0))).csv())[0]["NLL"] == "-1.0"


def test_what_is_shown_of_a_figure() -> None:
    change = Figure(-0.114, -0.15, -0.08, "points")
    figure = Figure(0.069, 0.05, 0.09, "%", 0.004, change, 0.021, 0.0001, True)
    block = sheet(("a", figure), ("b", None)).block()
    cell = block.rows[0][1]
    assert (cell.text, cell.detail, cell.strong) == ("6.9%", "[5.0, 9.0]", True)
    minus = "\N{MINUS SIGN}"
    assert cell.note.split("\n") == [
        "± 0.4% over seeds",
        f"Δ {minus}11.4 [{minus}15.0, {minus}8.0]",
        "floor 2.1%, p < 0.001",
    ]
    assert block.rows[1][1].text == "\N{EN DASH}" and not block.rows[1][1].strong
    assert block.words == 1


def test_markdown_shows_any_text_as_it_is_in_one_line() -> None:
    lines = sheet((NASTY, Figure(0.5, 0.4, 0.6, best=True))).markdown().splitlines()
    assert lines[:4] == ["A caption.", "", "| Method | NLL |", "|---|---|"]
    assert len(lines) == 5 and "<" not in lines[4] and "**0.500**" in lines[4]
    assert len(re.findall(r"(?<!\\)\|", lines[4])) == 3  # the cells' own
    for sign in "_*$#[]`~".replace("`", ""):
        assert re.search(rf"(?<!\\){re.escape(sign)}", lines[4].replace("**", "")) is None, sign


def test_latex_shows_any_text_as_it_is() -> None:
    tex = sheet((NASTY, Figure(-0.5, -0.6, -0.4, "%", best=True))).latex()
    body = tex.splitlines()[6]
    assert r"50\% of \{a\_b\} \& \$x\$ \#1" in body and r"\textbackslash{}" in body
    assert r"\textless{}script\textgreater{}" in body
    assert r"\textbf{$-$50.0\%}" in body and body.endswith(r" \\")
    # Whatever LaTeX reads as its own is behind a backslash, but for what we set ourselves.
    ours = re.sub(r"\$-\$|\\text[a-z]+\{\}|\\textbf|\\[%&#_{}$]|\\\\$", "", body)
    assert set(ours) & set("\\%#_$") == set()
    assert ours.count("{") == ours.count("}") == 1  # \textbf's
    assert ours.count("&") == 1  # between the cells


def test_tables_of_nothing_but_words_have_no_number_columns() -> None:
    block = Sheet("s", "c", ("A", "B", "C"), (("x", "y", 1), ("x", "z", 2))).block()
    assert block.words == 2
