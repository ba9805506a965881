"""The reliability diagrams, before and after calibration."""

from __future__ import annotations

import numpy as np
import torch

from calib_ebm.calibration.errors import reliability_bins
from calib_ebm.report import diagrams
from calib_ebm.report.blocks import Absent, Panel, Panels, Paragraph, Section
from calib_ebm.report.calibrated import calibrated_probs
from calib_ebm.report.columns import to_floats
from calib_ebm.report.files import Predictions, RunFolder
from calib_ebm.report.numbers import StoredEstimate, percent
from calib_ebm.report.shares import wilson

BINS = 20
TITLE = "Is its confidence right?"
HOW_TO_READ = (
    f"Texts are put into {BINS} equal bins by the probability of the predicted class. Where "
    "that can be trusted, a bin's bar ends on the dashed line; what is missing is red, what is "
    "beyond is orange; the thin lines are 95% intervals. Below: how many texts each bin holds."
)


def section(run: RunFolder) -> Section:
    """Both diagrams, computed from the stored logits and the calibrator."""
    test = run.predictions.of("test")
    if not test.ids:
        return Section("reliability", TITLE, (Absent("This run has no test predictions."),))
    if not run.predictions.labelled:
        why = "These texts have no labels, so nobody knows how often the classifier is right."
        return Section("reliability", TITLE, (Absent(why),))
    after = f"After {run.run.calibrator.words}"
    calibrated_NC = calibrated_probs(run)
    panels = (
        _panel(run, test, test.probs_NC(), "test", "before", "As trained"),
        _panel(run, test, calibrated_NC, "test_calibrated", "after", after),
    )
    how_to_read = (
        f"{HOW_TO_READ} Bins of fewer than {diagrams.FEW} texts are faint, for they say little."
    )
    return Section("reliability", TITLE, (Paragraph(how_to_read), Panels(panels)))


def bins_of(predictions: Predictions, temperature: float, bins: int = BINS) -> diagrams.Bins:
    """The bins of top-label confidence, from logits."""
    labels_N = torch.from_numpy(predictions.labels_N)
    return bins_of_probs(predictions.probs_NC(temperature), labels_N, bins)


def bins_of_probs(
    probs_NC: torch.Tensor, labels_N: torch.Tensor, bins: int = BINS
) -> diagrams.Bins:
    """The bins of top-label confidence, with Wilson's intervals of how often right."""
    found = reliability_bins(probs_NC, labels_N, bins)
    count_M = to_floats(found.count_M)
    frequency_M = np.nan_to_num(to_floats(found.frequency_M))
    return diagrams.Bins(
        edges=to_floats(found.edges_M1),
        count_M=count_M,
        confidence_M=np.nan_to_num(to_floats(found.confidence_M)),
        frequency_M=frequency_M,
        band=wilson(frequency_M, count_M),
    )


def _panel(
    run: RunFolder, test: Predictions, probs_NC: torch.Tensor, prefix: str, slug: str, title: str
) -> Panel:
    bins = bins_of_probs(probs_NC, torch.from_numpy(test.labels_N))
    texts = bins.count_M.sum()
    confidence = float((bins.count_M * bins.confidence_M).sum() / texts)
    right = float((bins.count_M * bins.frequency_M).sum() / texts)
    gap = confidence - right
    lean = "overconfident" if gap > 0 else "underconfident"
    ece = StoredEstimate.of(run.metrics, f"{prefix}/cal/ece")
    caption = (
        f"Mean confidence {percent(confidence)}, right {percent(right)}: {lean} by "
        f"{100 * abs(gap):.1f} points."
    )
    if ece is not None:
        caption = f"Top-label ECE {ece.text('%')}. {caption}"
    label = f"Reliability diagram, {title}. {caption}"
    return Panel(title, diagrams.reliability(bins, f"reliability-{slug}", label), caption)
