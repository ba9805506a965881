"""The calibrator of a run: fitted once, folded once, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from calib_ebm import EnergyClassifier
from calib_ebm.errors import InputError, Interrupted
from calib_ebm.learn import run as run_module
from calib_ebm.learn.measure import check_calibration
from calib_ebm.learn.run import run
from calib_ebm.report.files import read_predictions, read_run
from calib_ebm.text.load import load_task

Settings = Callable[..., dict[str, Any]]


def quiet(_: str) -> None:
    """Nobody listens."""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_saved_model_is_calibrated_and_the_table_is_not(settings: Settings) -> None:
    config = settings("energy=sharp_hidden", "calibrator=vector")
    folder = run(config, quiet)
    table = read_predictions(folder)
    # The energy is that of the uncalibrated logits, which are the table's.
    assert table.energy_N is not None
    np.testing.assert_allclose(table.energy_N, -table.logits_NC.max(axis=1), rtol=1e-6)
    task = load_task(config["task"], config["seed"])
    text = {e.id: e.text for e in (*task.fit, *task.test)}
    texts = [text[one] for one in table.ids[:9]]
    ours = EnergyClassifier.from_pretrained(folder / "model")
    np.testing.assert_allclose(ours.energy(texts), table.energy_N[:9], atol=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokens = AutoTokenizer.from_pretrained(folder / "model")
    inputs = tokens(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs).logits.softmax(-1).numpy()
    np.testing.assert_allclose(theirs, ours.predict_proba(texts), atol=1e-5)
    record = read_run(folder).run
    assert record.calibrator.name == "vector"
    by_record = record.calibrator.probabilities(torch.from_numpy(table.logits_NC[:9])).numpy()
    np.testing.assert_allclose(theirs, by_record, atol=1e-5)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "calibrator/temperature" not in metrics and "test_calibrated/cal/ece" in metrics
    page = (folder / "report.html").read_text()
    assert "After vector scaling (slopes" in page


@pytest.mark.parametrize("calibrator", ["vector", "temperature", "isotonic"])
def test_measured_again_nothing_is_folded_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, calibrator: str
) -> None:
    config = settings("energy=hidden", f"calibrator={calibrator}")
    with monkeypatch.context() as patch:

        def killed(folder: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(run_module, "write_report", killed)
        with pytest.raises(Interrupted):
            run(config, quiet)
    folder = Path(config["run_dir"])
    once = files(folder / "model")
    metrics = json.loads((folder / "metrics.json").read_text())
    run(config, quiet)
    assert files(folder / "model") == once
    again = json.loads((folder / "metrics.json").read_text())
    assert {**again} == pytest.approx(metrics, nan_ok=True)
    assert again["calibrator/temperature"] != 1 if calibrator == "temperature" else True
    notes = read_run(folder).run.notes
    told = [note for note in notes if "cannot be folded into the classifier" in note]
    assert len(told) == (calibrator == "isotonic")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("calibrator.ridge=-1",), "calibrator.ridge is -1"),
        (("+calibrator.slope=1",), "has options"),
        (("calibrator.name=magic",), "calibrator is 'magic'"),
    ],
)
def test_what_cannot_be_fitted_after_the_training_is_refused_before_it(
    settings: Settings, overrides: tuple[str, ...], said: str
) -> None:
    config = settings("energy=none", "calibrator=vector", *overrides)
    with pytest.raises(InputError, match=said):
        run(config, quiet)
    folder = Path(config["run_dir"])
    assert not (folder / "history.csv").exists() and not (folder / "model").exists()


def test_an_empty_fit_half_is_refused_unless_nothing_is_fitted(settings: Settings) -> None:
    config = settings()
    task = load_task(config["task"], config["seed"])
    for name in ("temperature", "vector", "isotonic"):
        with pytest.raises(InputError, match=f"calibrator={name} is to be fitted on an empty fit"):
            check_calibration({"name": name}, replace(task, fit=()))
        with pytest.raises(InputError, match="on 1 texts of 1 class"):
            check_calibration({"name": name}, replace(task, fit=task.fit[:1]))
        check_calibration({"name": name}, task)
    check_calibration({"name": "none"}, replace(task, fit=()))
