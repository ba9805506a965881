"""The top of the page: what was run, and in a plain sentence what was found."""

from __future__ import annotations

from calib_ebm.report.blocks import Tile, Tiles
from calib_ebm.report.files import RunFolder
from calib_ebm.report.numbers import StoredEstimate, count, p_value, percent

SURE = 0.05
"""Below this p-value the ECE is called more than chance."""


def title(run: RunFolder) -> str:
    """The page's title."""
    return f"How far to trust the {run.run.task} classifier"


def kicker(run: RunFolder) -> str:
    """Task, energy, noise and seed, in a line."""
    record = run.run
    plain = record.energy == "none"
    energy = "no energy (plain fine-tuning)" if plain else f"{record.energy} energy".strip()
    if not record.energy:  # a table from elsewhere, an ensemble of several kinds
        energy = ""
    noise = "" if plain or not record.noise else f"{record.noise} noise"
    parts = (f"task {record.task}", energy, noise, f"seed {record.seed}")
    return " · ".join(part for part in parts if part)


def summary(run: RunFolder) -> str:
    """What was found, for someone who reads nothing else."""
    sentences = (_accuracy(run), _one_class(run), _ece(run), _floor(run), _truth(run))
    return " ".join(sentence for sentence in sentences if sentence)


def tiles(run: RunFolder) -> Tiles:
    """The figures to be seen first."""
    wanted = (
        ("Accuracy", "test/cls/acc", "%"),
        ("Top-label ECE", "test/cal/ece", "%"),
        ("Top-label ECE, calibrated", "test_calibrated/cal/ece", "%"),
        ("NLL, in nats", "test/nll", "nats"),
    )
    found = ((label, StoredEstimate.of(run.metrics, name), unit) for label, name, unit in wanted)
    return Tiles(
        tuple(
            Tile(label, StoredEstimate(estimate.value).text(unit), estimate.interval(unit))
            for label, estimate, unit in found
            if estimate is not None
        )
    )


def _accuracy(run: RunFolder) -> str:
    texts = count(run.predictions.splits.count("test"), "test text")
    accuracy = StoredEstimate.of(run.metrics, "test/cls/acc")
    if accuracy is None:
        return f"Measured on {texts}."
    return f"On {texts} the classifier is right {_said(accuracy)} of the time."


def _one_class(run: RunFolder) -> str:
    """Said of a classifier that has learned nothing: shares and ECE alone make it look good."""
    predicted = run.predictions.of("test").logits_NC.argmax(axis=1)
    if len(predicted) < 2 or (predicted != predicted[0]).any():
        return ""
    return f"It calls every one of them {run.run.labels[predicted[0]]}, as a constant would."


def _ece(run: RunFolder) -> str:
    before = StoredEstimate.of(run.metrics, "test/cal/ece")
    after = StoredEstimate.of(run.metrics, "test_calibrated/cal/ece")
    if before is None:
        return ""
    sentence = f"Its confidence is off by {_said(before)} on average (top-label ECE)"
    if after is not None and run.run.calibrator.name != "none":
        sentence += f", and by {_said(after)} after {run.run.calibrator.words}"
    return f"{sentence}."


def _floor(run: RunFolder) -> str:
    measured = run.metrics.get("test/cal/ece")
    floor = run.metrics.get("test/cal/ece/floor")
    chance = run.metrics.get("test/cal/ece/p_value")
    if measured is None or floor is None:
        return ""
    start = f"A perfectly calibrated model as confident as this one would show {percent(floor)}"
    if chance is None:
        return f"{start} on as many texts."
    found = "is more than chance" if chance < SURE else "cannot be told from that"
    before = f"what is measured before calibration {found} ({p_value(chance)})"
    return f"{start} on as many texts: {before}."


def _truth(run: RunFolder) -> str:
    true = StoredEstimate.of(run.metrics, "test/cal/true")
    after = StoredEstimate.of(run.metrics, "test_calibrated/cal/true")
    if true is None:
        return ""
    scaled = "" if after is None else f", {_said(after)} after calibration"
    return f"Here the exact P(y|x) is known: the true calibration error is {_said(true)}{scaled}."


def _said(estimate: StoredEstimate) -> str:
    return estimate.text("%")
