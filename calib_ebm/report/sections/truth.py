"""What no real data set can show: the model against the language that the texts were drawn from."""

from __future__ import annotations

import numpy as np
import torch

from calib_ebm.report import diagrams
from calib_ebm.report.blocks import Panel, Panels, Paragraph, Section
from calib_ebm.report.calibrated import calibrated_probs
from calib_ebm.report.columns import Floats
from calib_ebm.report.files import Energies, Predictions, RunFolder, Truth
from calib_ebm.report.numbers import MINUS, count, decimals

TITLE = "Against the exact probabilities"


def section(run: RunFolder) -> Section | None:
    """The model's probabilities beside the exact P(y|x); None where that is not known."""
    panels = _probability_panels(run)
    if not panels:
        return None
    what = (
        "The texts of this task are drawn from a small language whose probabilities are known "
        "exactly, so here the model can be compared with the truth itself and not only with "
        "labels. On the dashed line both agree."
    )
    return Section("truth", TITLE, (Paragraph(what), Panels(panels)))


def _probability_panels(run: RunFolder) -> tuple[Panel, ...]:
    if run.truth is None or run.truth.probs_NC.shape[1] != len(run.run.labels):
        return ()
    test = run.predictions.of("test")
    if not test.ids:
        return ()
    panels = []
    for slug, title, probs_NC in (
        ("before", "as trained", test.probs_NC()),
        ("after", "calibrated", calibrated_probs(run)),
    ):
        confidence, exact = confidence_and_truth(test, run.truth, probs_NC)
        if not len(exact):
            return ()
        caption = (
            f"{count(len(exact), 'test text')}{_thinned(len(exact))}, the predicted class of each."
        )
        label = f"Model's confidence against exact probability, {title}. {caption}"
        drawing = diagrams.agreement(
            {"texts": (confidence, exact)},
            f"truth-{slug}",
            label,
            axis_labels=("Model's confidence", "Exact P(predicted class | text)"),
            limits=(0.0, 1.0),
        )
        panels.append(Panel(f"Probability, {title}", drawing, caption))
    return tuple(panels)


def confidence_and_truth(
    predictions: Predictions, truth: Truth, probabilities_NC: torch.Tensor
) -> tuple[Floats, Floats]:
    """Of each text whose truth is known: probability of the predicted class, and its exact one."""
    row_of = {one: row for row, one in enumerate(truth.ids)}
    known = [index for index, one in enumerate(predictions.ids) if one in row_of]
    rows = [row_of[predictions.ids[index]] for index in known]
    probs_NC = probabilities_NC.numpy()[known]
    predicted = probs_NC.argmax(axis=1)
    at = np.arange(len(known))
    return probs_NC[at, predicted], truth.probs_NC[rows][at, predicted]


def energy_panels(run: RunFolder) -> tuple[Panel, ...]:
    """Learned against true energies; nothing where those are not known."""
    energies = run.energies
    if energies is None or energies.true_data_N is None or energies.true_noise_N is None:
        return ()
    groups = {
        "data": (energies.true_data_N, energies.data_N),
        "noise": (energies.true_noise_N, energies.noise_N),
    }
    caption = _energy_caption(run, energies)
    drawing = diagrams.agreement(
        groups,
        "truth-energy",
        f"Learned energy against true energy. {caption}",
        axis_labels=(f"True energy, {MINUS}log(P_data / P_noise)", "Learned energy"),
    )
    return (Panel("Learned against true energy", drawing, caption),)


def _energy_caption(run: RunFolder, energies: Energies) -> str:
    true = np.concatenate([energies.true_data_N, energies.true_noise_N])
    learned = np.concatenate([energies.data_N, energies.noise_N])
    finite = np.isfinite(true) & np.isfinite(learned)
    correlation = run.metrics.get("energy/true_correlation")
    if (
        correlation is None
        and finite.sum() > 1
        and np.ptp(true[finite])
        and np.ptp(learned[finite])
    ):
        correlation = float(np.corrcoef(true[finite], learned[finite])[0, 1])
    parts = [] if correlation is None else [f"Correlation {decimals(correlation)}."]
    parts.append(f"{count(int(finite.sum()), 'text')}{_thinned(int(finite.sum()))}.")
    endless = int((~finite).sum())
    if endless:
        parts.append(f"{count(endless, 'text')} with an infinite or unknown true energy left out.")
    return " ".join(parts)


def _thinned(points: int) -> str:
    if points <= diagrams.MOST_POINTS:
        return ""
    return f" (at most {count(diagrams.MOST_POINTS, 'point')} drawn)"
