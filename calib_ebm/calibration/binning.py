"""Calibrators with a value for each bin.

histogram_binning  the share of the class in each bin of p_c. Zadrozny and Elkan, ICML 2001
scaling_binning    a logistic curve, then its mean in each of 20 bins of equal counts: the error
                   of what comes out can be measured. Kumar et al., NeurIPS 2019
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from calib_ebm.calibration.calibrator import State, numbers, spread
from calib_ebm.calibration.checks import check_bins
from calib_ebm.calibration.curves import (
    Sigmoid,
    Steps,
    bin_means,
    equal_mass_inner_edges,
    equal_width_inner_edges,
    fit_sigmoid,
)
from calib_ebm.calibration.one_versus_rest import (
    OneVersusRest,
    Smoothed,
    are_shares,
    broken_curve,
    from_to,
    log_odds,
    sigmoid_of,
)


class HistogramBinning(Smoothed):
    """The share of the class in each bin of its probability.

    An empty bin has the value of its middle.

    Args:
        bins: at most so many for each class.
        equal_mass: bins of equal counts; else of equal width.
        smooth: as of `Smoothed`.
    """

    name = "histogram_binning"
    called = "histogram binning"

    def __init__(self, bins: int = 20, equal_mass: bool = False, smooth: bool = True) -> None:
        check_bins(bins)
        self.bins = bins
        self.equal_mass = bool(equal_mass)
        super().__init__(smooth)

    def _options(self) -> dict[str, Any]:
        return {"bins": self.bins, "equal_mass": self.equal_mass, "smooth": self.smooth}

    def _numbers(self, curve: Steps) -> int:
        return len(curve.value_M)

    def _fit_one(self, score_N: Tensor, outcome_N: Tensor) -> Steps:
        edges = (
            equal_mass_inner_edges(score_N, self.bins)
            if self.equal_mass
            else equal_width_inner_edges(self.bins)
        )
        return bin_means(score_N, outcome_N, edges)

    def _plain(self, curve: Steps) -> State:
        return {"inner_edges": curve.inner_edges.tolist(), "values": curve.value_M.tolist()}

    def _curve(self, plain: Mapping[str, object]) -> Steps:
        return _steps(plain)

    def _said(self, curves: list[Steps]) -> str:
        return f"{from_to([len(curve.value_M) for curve in curves])} bins for each fitted class"


class _Binned:
    """A logistic curve whose values are replaced by their means in bins."""

    def __init__(self, sigmoid: Sigmoid, steps: Steps) -> None:
        self.sigmoid = sigmoid
        self.steps = steps

    def __call__(self, score_N: Tensor) -> Tensor:
        return self.steps(self.sigmoid(score_N))


class ScalingBinning(OneVersusRest):
    """A logistic curve for each class, then the mean of its values in bins of equal counts.

    Args:
        bins: at most so many for each class; equal values share one.
    """

    name = "scaling_binning"
    called = "scaling-binning"

    def __init__(self, bins: int = 20) -> None:
        check_bins(bins)
        self.bins = bins
        super().__init__()

    def _options(self) -> dict[str, Any]:
        return {"bins": self.bins}

    def _scores(self, logits_NC: Tensor) -> Tensor:
        return log_odds(logits_NC)

    def _fit_one(self, score_N: Tensor, outcome_N: Tensor) -> _Binned:
        sigmoid = fit_sigmoid(score_N, outcome_N, smoothed=False)
        value_N = sigmoid(score_N)
        return _Binned(
            sigmoid, bin_means(value_N, value_N, equal_mass_inner_edges(value_N, self.bins))
        )

    def _plain(self, curve: _Binned) -> State:
        return {
            "slope": curve.sigmoid.slope,
            "offset": curve.sigmoid.offset,
            "inner_edges": curve.steps.inner_edges.tolist(),
            "values": curve.steps.value_M.tolist(),
        }

    def _curve(self, plain: Mapping[str, object]) -> _Binned:
        return _Binned(sigmoid_of(plain), _steps(plain))

    def _said(self, curves: list[_Binned]) -> str:
        bins = from_to([len(curve.steps.value_M) for curve in curves])
        return f"{bins} bins; slopes {spread([curve.sigmoid.slope for curve in curves])}"


def _steps(plain: Mapping[str, object]) -> Steps:
    inner_edges, value_M = numbers(plain, "inner_edges"), numbers(plain, "values")
    fits = inner_edges.ndim == value_M.ndim == 1 and len(value_M) == len(inner_edges) + 1
    if not fits or not (inner_edges.diff() > 0).all() or not are_shares(value_M):
        raise broken_curve()
    return Steps(inner_edges, value_M)
