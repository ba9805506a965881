from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from calib_ebm.calibration.calibrators import build_calibrator
from calib_ebm.errors import InputError
from calib_ebm.report import files
from calib_ebm.report.blocks import Page, Paragraph, Section, Tiles
from calib_ebm.report.page import render, write_report
from calib_ebm.report.sections import headline, training, truth
from calib_ebm.report.sections.reliability import bins_of

MakeRun = Callable[..., Path]
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """The tags, attributes and text of a page, as a browser would take them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(page)
        self.close()
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for one, value in self.attributes if one == name]


def read(folder: Path) -> Reader:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


ALL = [
    {"embedded": True},
    {"classes": 3},
    {"energy": "none"},
    {"nasty": True, "embedded": True},
    {"rows": 1},
    {"rows": 0},
]


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_a_page_is_well_formed_and_needs_nothing_but_itself(
    make_run: MakeRun, kind: dict[str, object]
) -> None:
    page = read(make_run(**kind))
    assert page.unbalanced == []
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert all(target.startswith("#") for target in page.values("href"))
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    assert {target[1:] for target in page.values("href")} <= set(ids)
    assert "default-src 'none'; style-src 'unsafe-inline'" in " ".join(page.values("content"))
    assert page.tags.count("svg") == page.values("role").count("img") > 0


def test_markup_in_the_data_is_shown_and_never_run(make_run: MakeRun, nasty: str) -> None:
    page = read(make_run(nasty=True))
    assert "script" not in page.tags
    # Task, kicker, note, command, label, samples, versions, digests, config.
    assert page.text.count("<script>alert(1)</script>") >= 12
    assert nasty in page.text


def test_the_reader_of_these_tests_would_see_a_script() -> None:
    section = Section("a", "b", (Paragraph("<script>alert(1)</script>"),))
    page = Page("t", "k", "s", Tiles(()), (section,))
    assert "script" not in Reader(render(page)).tags
    unescaped = render(page).replace("&lt;", "<").replace("&gt;", ">")
    assert "script" in Reader(unescaped).tags


def test_the_page_is_made_again_byte_for_byte(make_run: MakeRun) -> None:
    folder = make_run(embedded=True)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_the_sections_of_a_full_run(make_run: MakeRun) -> None:
    page = read(make_run(embedded=True))
    assert page.tags.count("section") == 8
    # Two reliability diagrams, five curves, two and two of energies, two of probabilities.
    assert page.tags.count("svg") == 13
    for text in (
        "9.3% [7.4, 11.2]",
        "floor 2.7%, p = 0.001",
        "True calibration error",
        "Correlation 0.962. 593 texts. 7 texts with an infinite or unknown true energy left out.",
        "energy \N{MINUS SIGN}0.250",
        "the <mask> sang <mask> river",
        "12 of 25 held-out samples.",
        "2 texts of train were empty",
        "commit 0123456789ab+changes",
        "1 min 35 s",
        "max_steps: 300",
        "torch 2.13.0",
    ):
        assert text in page.text
    assert "a" * 13 not in page.text


def test_plain_fine_tuning_says_why_it_has_no_energies(make_run: MakeRun) -> None:
    page = read(make_run(energy="none"))
    assert "plain fine-tuning (energy=none): it has no energy to show" in page.text
    assert "trained without noise" in page.text
    assert page.tags.count("svg") == 2 + 3
    assert "plain fine-tuning (energy=none)" not in read(make_run(name="joint")).text


def test_what_is_missing_is_a_sentence_and_no_error(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("history.csv", "energies.parquet", "noise_samples.jsonl"):
        (folder / name).unlink()
    files.write_metrics(folder, {})
    page = read(folder)
    names = ("history.csv", "energies.parquet", "noise_samples.jsonl", "metrics.json")
    for name in (*names, "texts.parquet"):
        assert name in page.text
    assert page.tags.count("svg") == 2 + 2


def test_huge_energies_are_drawn_and_what_is_outside_is_counted(make_run: MakeRun) -> None:
    folder = make_run()
    data = np.append(np.random.default_rng(0).standard_normal(500), [1e30, -1e35])
    files.write_energies(folder, data, np.append(data[:500] + 3, np.inf))
    assert "3 texts outside the drawn range" in read(folder).text


def test_a_run_of_one_row_of_history(make_run: MakeRun) -> None:
    assert "Logged once, at step 0" in read(make_run(rows=1)).text


@pytest.mark.parametrize(("rows", "means"), [(80, True), (20, False)])
def test_of_a_long_training_means_are_told_and_of_a_short_one_values(
    make_run: MakeRun, rows: int, means: bool
) -> None:
    text = read(make_run(rows=rows)).text
    assert (" in the first tenth of the steps, " in text) == means


def test_a_run_without_test_texts(make_run: MakeRun) -> None:
    folder = make_run()
    files.write_predictions(folder, ["a"], ["fit"], [0], np.zeros((1, 2)), None)
    assert "no test predictions" in read(folder).text


# ------------------------------------------------------------------------------ what it says


def summary_with(make_run: MakeRun, **metrics: float) -> str:
    folder = make_run(name=f"run-{len(metrics)}-{sum(metrics.values())}")
    names = {name.replace("__", "/"): value for name, value in metrics.items()}
    files.write_metrics(folder, names)
    return headline.summary(files.read_run(folder))


def test_the_summary_says_how_the_error_stands_to_its_floor(make_run: MakeRun) -> None:
    ece = {"test__cls__acc": 0.9, "test__cal__ece": 0.05}
    floor = {"test__cal__ece__floor": 0.02}
    chance = "test__cal__ece__p_value"
    assert "perfectly calibrated" not in summary_with(make_run, **ece)
    assert "would show 2.0% on as many texts." in summary_with(make_run, **ece, **floor)
    sure = summary_with(make_run, **ece, **floor, **{chance: 0.001})
    assert "is more than chance (p = 0.001)" in sure
    unsure = summary_with(make_run, **ece, **floor, **{chance: 0.4})
    assert "cannot be told from that (p = 0.400)" in unsure


def test_the_summary_says_when_every_text_is_given_the_same_class(make_run: MakeRun) -> None:
    folder = make_run()
    assert "as a constant would" not in headline.summary(files.read_run(folder))
    logits = np.tile([0.0, 1.0], (4, 1))
    files.write_predictions(folder, list("abcd"), ["test"] * 4, [0, 1, 0, 1], logits, None)
    run = files.read_run(folder)
    said = f"It calls every one of them {run.run.labels[1]}, as a constant would."
    assert said in headline.summary(run)


def test_the_summary_names_error_and_temperature(make_run: MakeRun) -> None:
    text = headline.summary(files.read_run(make_run(embedded=True)))
    assert "On 400 test texts the classifier is right 81.2% [65.0, 97.5] of the time." in text
    assert "off by 9.3% [7.4, 11.2] on average (top-label ECE), and by 3.1% [2.5, 3.7]" in text
    assert "T = 1.750" in text
    assert "the true calibration error is 8.1%, 2.1% after calibration" in text


def test_the_page_says_which_calibrator_was_fitted(make_run: MakeRun) -> None:
    folder = make_run(classes=3)
    plain = json.loads((folder / "run.json").read_text())
    run = files.read_run(folder)
    fit = run.predictions.of("fit")
    for name in ("vector", "isotonic", "none"):
        calibrator = build_calibrator({"name": name}).fit(
            torch.from_numpy(fit.logits_NC), torch.from_numpy(fit.labels_N)
        )
        record = plain | {"temperature": None, "calibrator": calibrator.state()}
        (folder / "run.json").write_text(json.dumps(record))
        text = headline.summary(files.read_run(folder))
        assert (calibrator.words in text) == (name != "none")
        page = write_report(folder).read_text()
        assert calibrator.words in page and "T = 1.75" not in page
    for broken in ({"name": "magic"}, [1], {"name": "vector", "weight": [[1]]}):
        (folder / "run.json").write_text(json.dumps(plain | {"calibrator": broken}))
        with pytest.raises(InputError, match=r"run\.json"):
            files.read_run(folder)


def test_the_diagrams_bins_give_the_ece_of_the_stored_logits(make_run: MakeRun) -> None:
    test = files.read_run(make_run(classes=3)).predictions.of("test")
    for temperature in (1.0, 1.75):
        bins = bins_of(test, temperature)
        scaled = np.exp(test.logits_NC / temperature)
        probs = scaled / scaled.sum(axis=1, keepdims=True)
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == test.labels_N
        ece = 0.0
        for low in np.arange(20) / 20:
            held = (confidence > low) & (confidence <= low + 0.05)
            if held.any():
                ece += held.mean() * abs(confidence[held].mean() - right[held].mean())
        gaps = bins.count_M * abs(bins.confidence_M - bins.frequency_M)
        np.testing.assert_allclose(gaps.sum() / bins.count_M.sum(), ece, atol=1e-12)
        assert bins.count_M.sum() == 400


def test_truth_is_joined_by_id_and_not_by_position(make_run: MakeRun) -> None:
    run = files.read_run(make_run(embedded=True))
    assert run.truth is not None
    backwards = files.Truth(run.truth.ids[::-1], run.truth.probs_NC[::-1])
    test = run.predictions.of("test")
    confidence, exact = truth.confidence_and_truth(test, backwards, test.probs_NC(1.7))
    # The made-up run's exact probabilities are softmax(logits / 1.7).
    np.testing.assert_allclose(confidence, exact, atol=1e-12)
    confidence, exact = truth.confidence_and_truth(test, backwards, test.probs_NC())
    assert abs(confidence - exact).mean() > 0.03
    few = files.Truth(run.truth.ids[:10], run.truth.probs_NC[:10])
    assert len(truth.confidence_and_truth(test, few, test.probs_NC())[0]) == 5


def test_curves_are_of_what_was_logged_in_the_order_of_steps() -> None:
    step = np.asarray([30.0, 10.0, 20.0, np.nan, 40.0])
    value = np.asarray([3.0, 1.0, np.nan, 5.0, np.inf])
    found = training.logged(step, value)
    assert found is not None
    assert [one.tolist() for one in found] == [[10.0, 30.0], [1.0, 3.0]]
    assert training.logged(step, None) is None
    assert training.logged(step, np.full(5, np.nan)) is None
