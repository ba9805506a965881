"""The table of metrics, as data: the page and the console draw the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calib_ebm.report.numbers import StoredEstimate, decimals, p_value, percent


@dataclass(frozen=True)
class Metric:
    """One row of the table: a figure that a run measures."""

    name: str
    """As in metrics.json, without the prefix of the column."""
    label: str
    unit: str
    better: str
    """"higher", "lower", or empty where neither is better."""
    meaning: str
    further: bool = False
    """Stands in a table of its own, below the figures that everyone asks for."""


METRICS: tuple[Metric, ...] = (
    Metric("cls/acc", "Accuracy", "%", "higher", "how often the most probable class is right"),
    Metric(
        "cls/mcc",
        "MCC",
        "",
        "higher",
        "Matthews correlation of prediction and label, from minus one to one",
    ),
    Metric("cls/f1", "F1", "%", "higher", "harmonic mean of precision and recall"),
    Metric(
        "cal/ece",
        "ECE, top-label",
        "%",
        "lower",
        "mean gap of the predicted class's probability to how often it is right",
    ),
    Metric(
        "cal/ece_classwise",
        "ECE, classwise",
        "%",
        "lower",
        "the same gap for each class's probability, averaged over classes",
    ),
    Metric(
        "cal/ece_pooled",
        "ECE, pooled",
        "%",
        "lower",
        "the same gap with the probabilities of all classes in one histogram",
    ),
    Metric(
        "cal/true",
        "True calibration error",
        "%",
        "lower",
        "as top-label ECE, with the exact P(y|x) in place of the labels",
    ),
    Metric(
        "cal/true_pointwise",
        "True error, text by text",
        "%",
        "lower",
        "mean distance of the predicted class's probability from its exact one",
    ),
    Metric(
        "cal/ece_equal_mass",
        "ECE, equal mass",
        "%",
        "lower",
        "as top-label, with as many texts in each bin",
        further=True,
    ),
    Metric(
        "cal/ece_debiased_l2",
        "ECE, debiased L2",
        "%",
        "lower",
        "root of the mean squared gap, less what the labels' chance adds; equal mass",
        further=True,
    ),
    Metric(
        "cal/ece_sweep",
        "ECE, sweep",
        "%",
        "lower",
        "equal mass, with the most bins that keep the frequencies rising",
        further=True,
    ),
    Metric(
        "cal/smooth_ece",
        "Smooth ECE",
        "%",
        "lower",
        "top-label, with a kernel instead of bins",
        further=True,
    ),
    Metric(
        "cal/ks",
        "KS error",
        "%",
        "lower",
        "largest sum of gaps from the least confident text on, per text",
        further=True,
    ),
    Metric("nll", "NLL", "nats", "lower", "mean of minus the log of the true class's probability"),
    Metric("brier", "Brier score", "", "lower", "mean squared distance from the label, 0 to 2"),
    Metric(
        "brier/reliability",
        "Brier: reliability",
        "",
        "lower",
        "squared gaps, summed over classes",
        further=True,
    ),
    Metric(
        "brier/resolution",
        "Brier: resolution",
        "",
        "higher",
        "how far the bins' frequencies lie from the classes' own",
        further=True,
    ),
    Metric(
        "brier/uncertainty",
        "Brier: uncertainty",
        "",
        "",
        "the score of the classes' frequencies alone, the same for every model",
        further=True,
    ),
    Metric(
        "selective/aurc",
        "AURC",
        "%",
        "lower",
        "error rate of the most confident texts, averaged over how many are kept",
        further=True,
    ),
    Metric(
        "selective/e_aurc",
        "Excess AURC",
        "%",
        "lower",
        "above a ranking with all errors last",
        further=True,
    ),
    Metric("confidence", "Mean confidence", "%", "", "mean probability of the predicted class"),
    Metric("entropy", "Mean entropy", "nats", "", "of the probabilities, at most log C"),
)

COLUMNS: dict[str, str] = {"test": "Test", "test_calibrated": "Test, calibrated"}
"""Prefix in metrics.json and the column's head."""


@dataclass(frozen=True)
class MetricRow:
    """A metric and its estimate in each column; None where it was not measured."""

    metric: Metric
    cells: tuple[StoredEstimate | None, ...]

    def texts(self) -> tuple[str, ...]:
        """The cells, written."""
        return tuple("" if cell is None else cell.text(self.metric.unit) for cell in self.cells)


def metric_rows(
    metrics: Mapping[str, float], columns: Mapping[str, str] = COLUMNS, *, further: bool = False
) -> tuple[MetricRow, ...]:
    """The metrics that were measured in at least one column, in their fixed order.

    `further` asks for the second table instead of the first.

    >>> [row.texts() for row in metric_rows({"test/nll": 0.5, "test_calibrated/nll": 0.25})]
    [('0.500', '0.250')]
    """
    rows = []
    for metric in METRICS:
        if metric.further != further:
            continue
        cells = tuple(StoredEstimate.of(metrics, f"{prefix}/{metric.name}") for prefix in columns)
        if any(cell is not None for cell in cells):
            rows.append(MetricRow(metric, cells))
    return tuple(rows)


def floor_texts(
    metrics: Mapping[str, float], name: str, columns: Mapping[str, str] = COLUMNS
) -> tuple[str, ...]:
    """Of each column, the floor of `name` and the p-value against it; empty where not measured.

    The floor of a calibration error is its mean for a perfectly calibrated model with the same
    probabilities, on as many texts.

    >>> floor_texts({"test/cal/ece/floor": 0.018, "test/cal/ece/p_value": 0.3}, "cal/ece")
    ('1.8%, p = 0.300', '')
    >>> floor_texts({"test/brier/reliability/floor": 0.004}, "brier/reliability")
    ('0.004', '')
    """
    units = {metric.name: metric.unit for metric in METRICS}
    write = percent if units.get(name, "%") == "%" else decimals
    cells = []
    for prefix in columns:
        floor = metrics.get(f"{prefix}/{name}/floor")
        chance = metrics.get(f"{prefix}/{name}/p_value")
        parts = (
            "" if floor is None else write(floor),
            "" if chance is None else p_value(chance),
        )
        cells.append(", ".join(part for part in parts if part))
    return tuple(cells)


def diagnostics(metrics: Mapping[str, float]) -> tuple[tuple[str, str, str], ...]:
    """What the noise and the energy reached: (name, value, meaning) of each one measured."""
    known = (
        ("noise/perplexity", "Noise model's perplexity", decimals, "per token, on held-out texts"),
        ("nce/accuracy", "Data told from noise", percent, "50% is a coin's toss"),
        ("energy/data", "Mean energy of data", decimals, "held-out texts"),
        ("energy/noise", "Mean energy of noise", decimals, "held-out noise"),
        ("energy/gap", "Gap", decimals, "noise minus data"),
        ("energy/true_correlation", "Correlation with the true energy", decimals, "1 is perfect"),
    )
    return tuple(
        (label, write(metrics[name]), meaning)
        for name, label, write, meaning in known
        if name in metrics
    )
