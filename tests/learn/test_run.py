"""A whole run on the embedded task: the contract of its folder, Ctrl-C, going on, refusing."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from calib_ebm import EnergyClassifier
from calib_ebm.errors import InputError, Interrupted, TrainingFailed
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.run import run
from calib_ebm.report.files import read_predictions, read_run

Settings = Callable[..., dict[str, Any]]


def quiet(_: str) -> None:
    """Nobody listens."""


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], Any]) -> None:
    """Let `action` happen within the training step `step`."""
    original = JointModule.training_step

    def patched(self: JointModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            action()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(JointModule, "training_step", patched)


def interrupt() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("energy", ["none", "scalar", "sharp_hidden"])
def test_a_run_leaves_the_contract(settings: Settings, energy: str) -> None:
    folder = run(settings(f"energy={energy}"), quiet)
    there = {p.name for p in folder.iterdir()}
    expected = {
        "config.yaml",
        "run.json",
        "metrics.json",
        "history.csv",
        "predictions.parquet",
        "model",
        "report.html",
        "truth.parquet",
        "texts.parquet",
        ".lock",
    }
    if energy != "none":
        expected |= {"energies.parquet", "noise_samples.jsonl"}
    assert there == expected
    metrics = json.loads((folder / "metrics.json").read_text())
    for prefix in ("test", "test_calibrated"):
        for name in (
            "cls/acc",
            "cal/ece",
            "cal/ece_classwise",
            "cal/ece_pooled",
            "cal/ece_equal_mass",
            "cal/ece_debiased_l2",
            "cal/ece_sweep",
            "cal/smooth_ece",
            "brier/reliability",
            "brier/resolution",
            "brier/uncertainty",
            "selective/aurc",
            "selective/e_aurc",
            "nll",
            "brier",
            "cal/true",
        ):
            low, value, high = (metrics[f"{prefix}/{name}{end}"] for end in ("/low", "", "/high"))
            assert low <= value <= high, name
    assert ("nce/accuracy" in metrics) == ("noise/perplexity" in metrics) == (energy != "none")
    record = read_run(folder)
    assert record.run.status == "complete"
    assert {"load", "train", "measure", "report"} <= set(record.run.stages)
    assert (record.predictions.energy_N is None) == (energy == "none")


def test_predictions_are_the_saved_model_s(settings: Settings) -> None:
    folder = run(settings("energy=scalar"), quiet)
    from calib_ebm.text.load import load_task

    config = settings("energy=scalar")
    task = load_task(config["task"], config["seed"])
    text = {e.id: e.text for e in (*task.fit, *task.test)}
    table = read_predictions(folder)
    texts = [text[i] for i in table.ids]
    classifier = EnergyClassifier.from_pretrained(folder / "model")
    logits, energy = classifier.score(texts)
    assert energy is not None and table.energy_N is not None
    torch.testing.assert_close(
        logits.double(), torch.from_numpy(table.logits_NC), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(energy.double(), torch.from_numpy(table.energy_N), atol=1e-5, rtol=0)
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokens = AutoTokenizer.from_pretrained(folder / "model")(texts[:1], return_tensors="pt")
    # Transformers alone gives them calibrated.
    affine = classifier.calibrator.affine(len(classifier.labels))
    assert affine is not None
    theirs = plain(**tokens).logits.double()
    torch.testing.assert_close(theirs, affine(logits[:1]), atol=1e-5, rtol=0)
    halves = dict(zip(table.ids, table.splits, strict=True))
    assert {halves[e.id] for e in task.fit} == {"fit"} and {halves[e.id] for e in task.test} == {
        "test"
    }


@pytest.mark.parametrize("step", [3, 4, 7])
def test_interrupted_and_resumed_is_uninterrupted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = run(settings("energy=sharp_hidden", run="whole"), quiet)
    halted = settings("energy=sharp_hidden", run="halted")
    with monkeypatch.context() as patch:
        at_step(patch, step, interrupt)
        with pytest.raises(Interrupted, match=f"step {step + 1} of 12"):
            run(halted, quiet)
    folder = Path(halted["run_dir"])
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert not (folder / "metrics.json").exists()
    said: list[str] = []
    assert run(halted, said.append) == folder
    assert any(f"step {step + 1}" in line for line in said)
    ours, theirs = (load_file(f / "model" / "model.safetensors") for f in (folder, whole))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert rows(folder) == rows(whole)
    assert (folder / "metrics.json").read_text() == (whole / "metrics.json").read_text()


def test_another_seed_gives_other_weights(settings: Settings) -> None:
    one = run(settings("energy=none", run="one"), quiet)
    two = run(settings("energy=none", "seed=2", run="two"), quiet)
    ours, theirs = (load_file(f / "model" / "model.safetensors") for f in (one, two))
    assert any(
        not torch.equal(ours[n], theirs[n]) for n in ours if ours[n].shape == theirs[n].shape
    )


def rows(folder: Path) -> list[dict[str, str]]:
    """history.csv."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_history_has_a_row_a_step_and_the_measurements(settings: Settings) -> None:
    history = rows(run(settings("energy=hidden"), quiet))
    assert [int(r["step"]) for r in history] == list(range(12))
    for name in ("loss/ce", "loss/nce", "energy/gap", "nce/accuracy", "cls/acc", "optim/lr"):
        assert all(r[name] != "" for r in history), name
    assert [int(r["step"]) for r in history if r["val/cal/ece"] != ""] == [3, 7, 11]


def test_where_logging_takes_time_only_what_is_written_is_logged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; the history is that of a CPU, which logs each step for the bar."""
    original, histories, calls = JointModule._log_step, [], []

    def counted(self: JointModule, *given: Any) -> None:
        calls.append(self.global_step)
        original(self, *given)

    monkeypatch.setattr(JointModule, "_log_step", counted)
    for each in (True, False):
        monkeypatch.setattr(JointModule, "_logs_each_step", lambda self, each=each: each)
        config = settings("energy=hidden", "trainer.log_every=3", run=f"each_{each}")
        histories.append(rows(run(config, quiet)))
    assert calls == [*range(12), 2, 5, 8, 11]
    assert histories[0] == histories[1] and len(histories[0]) >= 4


def test_a_non_finite_loss_stops_and_keeps_the_checkpoint(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("energy=none", "trainer.checkpoint_every=2")
    original = JointModule.training_step
    with monkeypatch.context() as patch:

        def poisoned(self: JointModule, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 5:
                with torch.no_grad():
                    next(self.network.parameters()).fill_(float("nan"))
            return original(self, batch, batch_idx)

        patch.setattr(JointModule, "training_step", poisoned)
        with pytest.raises(TrainingFailed, match="nan at step 5"):
            run(config, quiet)
    folder = Path(config["run_dir"])
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 4
    assert all(
        torch.isfinite(v).all() for v in kept["state_dict"].values() if v.is_floating_point()
    )
    assert read_run(run(config, quiet)).run.status == "complete"


def test_a_finished_run_is_left_alone(settings: Settings) -> None:
    config = settings("energy=none")
    before = (run(config, quiet) / "metrics.json").stat().st_mtime_ns
    said: list[str] = []
    folder = run(config, said.append)
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert "finished already" in said[0]
    run({**config, "overwrite": True}, quiet)
    assert (folder / "metrics.json").stat().st_mtime_ns != before


def test_a_folder_of_other_settings_is_refused(settings: Settings) -> None:
    folder = run(settings("energy=none"), quiet)
    (folder / "mine.txt").write_text("keep")
    said: list[str] = []
    run(settings("energy=none", "trainer.graphs=false", "trainer.threads=1"), said.append)
    assert "finished already" in said[0]
    with pytest.raises(InputError, match=r"other settings \(optim.lr\)"):
        run(settings("energy=none", "optim.lr=0.1"), quiet)
    run(settings("energy=none", "optim.lr=0.001", "overwrite=true"), quiet)
    assert (folder / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.batch_size=0", "optim.batch_size is 0"),
        ("optim.lr=-1", "optim.lr is -1"),
        ("trainer.max_steps=0", "trainer.max_steps is 0"),
        ("loss.nce_weight=-1", "loss.nce_weight is -1"),
        ("loss.ramp=2", "loss.ramp is 2"),
        ("loss.gate=-1", "loss.gate is -1"),
        ("encoder.small.heads=3", "heads=3"),
        ("task.max_length=4", "task.max_length is 4"),
        ("trainer.accelerator=abacus", "trainer cannot be built"),
        ("logger.kind=paper", "logger.kind is 'paper'"),
        ("encoder.name_or_path=no/such", "No tokenizer could be loaded"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(
    settings: Settings, override: str, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        run(settings("energy=none", override), quiet)
    assert said in str(refused.value) and "to do:" in str(refused.value)


def test_a_pretrained_encoder_trains_with_dropout(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # from_pretrained leaves models in evaluation mode, and so would Lightning.
    first = run(settings("energy=none", run="first"), quiet)
    modes: set[bool] = set()
    original = JointModule.training_step

    def recording(self: JointModule, batch: Any, batch_idx: int) -> Any:
        modes.update(m.training for m in self.modules() if isinstance(m, torch.nn.Dropout))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(JointModule, "training_step", recording)
    encoder = f"encoder.name_or_path={first / 'model'}"
    run(settings("energy=scalar", encoder, "trainer.max_steps=2", run="second"), quiet)
    assert modes == {True}


def test_data_that_changed_under_a_run_are_refused(settings: Settings, tmp_path: Path) -> None:
    csv_file = tmp_path / "mine.csv"
    lines = [f"text {row} is {'good' if row % 2 else 'bad'},{row % 2}" for row in range(120)]
    csv_file.write_text("\n".join(["text,label", *lines]))
    config = settings("energy=none")
    own = settings("energy=none", "task.language_seed=1")["task"] | {
        "name": "csv",
        "source": "csv",
        "train": str(csv_file),
        "dev": None,
        "dev_fraction": 0.4,
        "text": "text",
        "text_pair": None,
        "label": "label",
        "labels": None,
    }
    config["task"] = own
    run(config, quiet)
    said: list[str] = []
    run(config, said.append)
    assert "finished already" in said[0]
    csv_file.write_text(
        "\n".join(["text,label", *lines, "text 999 is good,1", "text 998 is bad,0"])
    )
    with pytest.raises(InputError, match="data are not those"):
        run(config, quiet)
    csv_file.unlink()
    assert run(config, quiet).exists()
