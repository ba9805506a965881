"""Calibration by few labels: what a temperature comes to that was fitted on n of them.

A temperature needs labelled texts that were not trained on, and who has few of them gets one that
chance has made. Whether a method that needs none is worth having is thus a question of how many
there would be. It is answered on stored predictions: of the reported texts some are drawn to be
labelled, the temperature is fitted on these, and measured on texts that no draw of any size has
touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.bins import BinnedSums, binned_sums, equal_width_edges, gap_norm
from calib_ebm.calibration.checks import check_logits
from calib_ebm.calibration.temperature import LOWER, UPPER
from calib_ebm.errors import InputError

HALVINGS = 32
"""Of the span of the logarithm of T, which is then known to 1e-9."""
TRIES = 1000
AT_ONCE = 2_000_000
"""Logits held at once."""


class FewLabels(NamedTuple):
    """Top-label ECE and mean NLL for S numbers of labels and R draws, in float64."""

    ece_SR: Tensor
    nll_SR: Tensor
    measured: int
    """Texts that both are measured on."""


def best_temperatures(logits_RNC: Tensor, labels_RN: Tensor, prior: float = 0.0) -> Tensor:
    """The temperature of `Temperature` for each of R sets of N texts, R.

    By halving: the slope of the mean NLL in 1/T rises (see `temperature.py`). 1 where all logits of
    each text are equal, and none is better than another.

    Args:
        logits_RNC: in any floating-point type.
        labels_RN: their labels.
        prior: as in `Temperature`.
    """
    logits_RNC = logits_RNC.double()
    logits_RNC = logits_RNC - logits_RNC.amax(dim=2, keepdim=True)
    label_R = logits_RNC.gather(2, labels_RN[:, :, None].long())[:, :, 0].mean(dim=1)

    def slope_R(temperature_R: Tensor) -> Tensor:
        probs_RNC = (logits_RNC / temperature_R[:, None, None]).softmax(dim=2)
        rising_R = (probs_RNC * logits_RNC).sum(dim=2).mean(dim=1) - label_R
        return rising_R + prior / labels_RN.shape[1] * (1 - temperature_R)

    coldest_R, warmest_R = torch.full_like(label_R, LOWER), torch.full_like(label_R, UPPER)
    low_R, high_R = coldest_R.log(), warmest_R.log()
    for _ in range(HALVINGS):
        middle_R = (low_R + high_R) / 2
        # The slope in 1/T: where it is negative, 1/T has to grow.
        too_warm_R = slope_R(middle_R.exp()) < 0
        high_R = torch.where(too_warm_R, middle_R, high_R)
        low_R = torch.where(too_warm_R, low_R, middle_R)
    found_R = ((low_R + high_R) / 2).exp()
    found_R = torch.where(slope_R(coldest_R) <= 0, coldest_R, found_R)
    found_R = torch.where(slope_R(warmest_R) >= 0, warmest_R, found_R)
    return torch.where(logits_RNC.flatten(1).any(dim=1), found_R, torch.ones_like(found_R))


def sizes_for(texts: int) -> tuple[int, ...]:
    """Numbers of labels worth asking about, from 10 to 1,000, while as many are left.

    >>> sizes_for(872), sizes_for(19)
    ((10, 20, 50, 100, 200), ())
    """
    return tuple(size for size in (10, 20, 50, 100, 200, 500, 1000) if 2 * size <= texts)


def draws_of(labels_N: Tensor, sizes: Sequence[int], draws: int, seed: int) -> Tensor:
    """Orders of the texts, R by N, of which the first n are labelled, for each n of `sizes`.

    Those of the smallest size have two classes among them: nobody fits a temperature on one.

    Raises:
        InputError: the labels are of one class, or one is so rare that it is never met.
    """
    generator = torch.Generator().manual_seed(seed)
    orders: list[Tensor] = []
    for _ in range(draws + TRIES):
        order_N = torch.randperm(len(labels_N), generator=generator)
        if len(labels_N[order_N[: min(sizes)]].unique()) > 1:
            orders.append(order_N)
        if len(orders) == draws:
            return torch.stack(orders)
    raise InputError(
        f"Of {draws + TRIES} draws of {min(sizes)} texts too few have labels of two classes.",
        "texts of at least two classes, none of them rare",
        "Draw more texts at a time.",
    )


def after_few_labels(
    logits_NC: Tensor,
    labels_N: Tensor,
    sizes: Sequence[int],
    *,
    draws: int = 200,
    seed: int = 0,
    bins: int = 20,
    prior: float = 0.0,
) -> FewLabels:
    """Measure, for each draw and each number of labels, the temperature that they give.

    All sizes of a draw are measured on the same texts: those after the largest size in its order.
    So are two methods on the same texts with the same seed.

    Args:
        logits_NC: before calibration.
        labels_N: of the same texts.
        sizes: numbers of labels, each at most N - 1; 0 is the method as it is, without any.
        draws: R.
        seed: of the draws.
        bins: M, of the ECE.
        prior: of the temperature, see `Temperature`.

    Raises:
        InputError: for wrong logits or labels, sizes that leave no text to measure on, or labels
            of one class.
    """
    check_logits(logits_NC, labels_N)
    if not sizes or min(sizes) < 0 or max(sizes) >= len(labels_N) or draws < 1:
        raise InputError(
            f"{draws} draws of {', '.join(map(str, sizes)) or 'no'} labels out of "
            f"{len(labels_N)} texts.",
            "at least one draw, and fewer labels than there are texts",
            "Ask for fewer labels.",
        )
    labelled = [size for size in sizes if size] or [1]
    orders_RN = draws_of(labels_N.cpu(), labelled, draws, seed)
    measured = len(labels_N) - max(sizes)
    logits_NC, labels_N = logits_NC.detach().cpu().double(), labels_N.cpu().long()
    step = max(1, AT_ONCE // logits_NC.numel())
    parts = [
        [_measure(logits_NC, labels_N, order_rN, size, measured, bins, prior) for size in sizes]
        for order_rN in orders_RN.split(step)
    ]
    ece_SR, nll_SR = (
        torch.cat([torch.stack([pair[which] for pair in part]) for part in parts], dim=1)
        for which in (0, 1)
    )
    return FewLabels(ece_SR, nll_SR, measured)


def _measure(
    logits_NC: Tensor,
    labels_N: Tensor,
    order_RN: Tensor,
    size: int,
    measured: int,
    bins: int,
    prior: float,
) -> tuple[Tensor, Tensor]:
    """ECE and NLL of each draw's measured texts, after its first `size` have given T."""
    temperature_R = torch.ones(len(order_RN), dtype=torch.float64)
    if size:
        first_Rn = order_RN[:, :size]
        temperature_R = best_temperatures(logits_NC[first_Rn], labels_N[first_Rn], prior)
    rest_RN = order_RN[:, -measured:]
    log_probs_RNC = (logits_NC[rest_RN] / temperature_R[:, None, None]).log_softmax(dim=2)
    label_RN = labels_N[rest_RN]
    nll_R = -log_probs_RNC.gather(2, label_RN[:, :, None])[:, :, 0].mean(dim=1)
    confidence_RN, predicted_RN = log_probs_RNC.exp().max(dim=2)
    correct_NR = (predicted_RN == label_RN).double().T
    edges_M1 = equal_width_edges(bins, confidence_RN)
    sums_RM = binned_sums(confidence_RN.T.clamp(max=1.0), correct_NR, edges_M1)
    # A draw each, not groups of one figure.
    return gap_norm(BinnedSums(*(each_RM[:, None] for each_RM in sums_RM)), "l1"), nll_R
