"""Smooth ECE: gaps averaged by a kernel instead of bins. Blasiok and Nakkiran, ICLR 2024.

    smECE_s = integral over t of |r_s(t)|
    r_s(t)  = 1/N sum_i (confidence_i - right_i) K_s(t, confidence_i)

with K_s the Gaussian of width s on the line, folded back into [0, 1] at both ends. It falls as s
rises, so there is one width with smECE_s = s, and that is the figure: nothing is to be chosen, and
a small change of a probability changes it little.

Folded Gaussians are damped cosines, r_s(t) = c_0 + 2 sum_k exp(-(pi k s)^2 / 2) c_k cos(pi k t),
and the c_k come from the gaps by one Fourier transform. The gaps are first shared out to the
nearest two of 1,025 nodes, and nothing else is kept: memory is constant, and sums over batches and
processes are exact. That sharing spreads each gap by at most 1/2048, which matters to the figure
only where it is below about .002.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calib_ebm.calibration.checks import check_predictions
from calib_ebm.calibration.errors import top_label_pairs
from calib_ebm.calibration.ordered import Ordered

CELLS = 1024
"""Between the nodes 0, 1/1024 ... 1."""
TOLERANCE = 1e-6
"""Of the width."""
MOST_STEPS = 30
"""In search of it; each at least halves what is left."""
ROWS = 64
"""Transformed at a time, so that they stay in a processor's cache."""


def smooth_ece(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """The top-label smooth ECE.

    Every confidence .7 and half of them right: one bump of height .2, whatever the width.

    >>> smooth_ece(torch.tensor([[0.7, 0.3]] * 2), torch.tensor([0, 1]))
    tensor(0.2000, dtype=torch.float64)
    """
    check_predictions(probs_BC, labels_B)
    return smooth_from_nodes(gap_nodes(probs_BC, labels_B)[None], len(probs_BC))[0]


def gap_nodes(probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Sums of confidence less right or wrong, shared out to the nodes: 1,025 of float64."""
    confidence_B1, right_B1 = top_label_pairs(probs_BC, labels_B)
    confidence_B = confidence_B1[:, 0].double()
    return _shared_out(confidence_B, (confidence_B - right_B1[:, 0].double())[None])[0]


def smooth_each(columns: Ordered) -> Tensor:
    """The smooth ECE of each of R columns."""
    return smooth_from_nodes(_shared_out(columns.confidence_U, columns.gap_RU), columns.texts)


def smooth_from_nodes(gap_RL: Tensor, texts: int | Tensor) -> Tensor:
    """The smooth ECE from R rows of sums at the nodes."""
    rows = gap_RL.split(ROWS)
    return torch.cat([_fixed_widths(_cosines(part_RL / texts)) for part_RL in rows])


def _fixed_widths(cosine_RK: Tensor) -> Tensor:
    """The width s of each row at which the smoothed error is s, to within TOLERANCE / 2.

    The error falls as s rises. So where it is above s, it bounds the wanted width from above and s
    does from below, and the other way round: one evaluation gives both ends of what is left.
    """
    low_R = cosine_RK[:, 0].abs()  # the mean gap, which no smoothing removes
    high_R = _smoothed(cosine_RK, low_R)
    for _ in range(MOST_STEPS):
        if bool((high_R - low_R <= TOLERANCE).all()):
            break
        width_R = (low_R + high_R) / 2
        error_R = _smoothed(cosine_RK, width_R)
        low_R = low_R.maximum(torch.minimum(width_R, error_R))
        high_R = high_R.minimum(torch.maximum(width_R, error_R))
    return (low_R + high_R) / 2


def _shared_out(confidence_U: Tensor, gap_RU: Tensor) -> Tensor:
    """Add each gap to the nodes on both sides, the nearer the more."""
    place_U = (confidence_U * CELLS).clamp(0, CELLS)
    left_U = place_U.floor().clamp(max=CELLS - 1)
    share_U, left_U = place_U - left_U, left_U.long()
    nodes_RL = gap_RU.new_zeros(len(gap_RU), CELLS + 1)
    nodes_RL.index_add_(1, left_U, gap_RU * (1 - share_U))
    return nodes_RL.index_add_(1, left_U + 1, gap_RU * share_U)


def _cosines(gap_RL: Tensor) -> Tensor:
    """c_k = sum_j gap_j cos(pi k j / 1024) for k = 0 ... 1024."""
    inner_RL = gap_RL[:, 1:-1] / 2
    even = torch.cat([gap_RL[:, :1], inner_RL, gap_RL[:, -1:], inner_RL.flip(1)], dim=1)
    return torch.fft.rfft(even, dim=1).real


def _smoothed(cosine_RK: Tensor, width_R: Tensor) -> Tensor:
    """The integral of |r| at each row's own width, by the trapezoidal rule over the nodes."""
    wave_K = math.pi * torch.arange(CELLS + 1, dtype=torch.float64, device=cosine_RK.device)
    damped_RK = cosine_RK * torch.exp(-((wave_K * width_R[:, None]) ** 2) / 2)
    r_RL = 2 * CELLS * torch.fft.irfft(damped_RK, n=2 * CELLS, dim=1)[:, : CELLS + 1]
    size_RL = r_RL.abs()
    return (size_RL.sum(dim=1) - (size_RL[:, 0] + size_RL[:, -1]) / 2) / CELLS
