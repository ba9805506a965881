"""An estimate on one set of texts less the same estimate on another set, of other texts.

Nothing of chance is shared by the two, so each set is resampled alone and the variances add up;
where both sets are of the same texts take `compare.paired_bootstrap`, whose interval is shorter.
The resamples' own shift is taken away as it is there, and why is said there.
"""

from __future__ import annotations

from torch import Tensor

from calib_ebm.calibration.checks import check_predictions
from calib_ebm.calibration.estimates import LabelledSet, named_estimate
from calib_ebm.calibration.intervals import LEVEL, Estimate
from calib_ebm.calibration.resample import bootstrap

Set = tuple[Tensor, Tensor]
"""Probabilities, N by C, and the labels of the N texts."""


def unpaired_difference(
    set_a: Set, set_b: Set, estimate: str, *, bins: int = 20, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """How much larger an estimate is on set a than on set b, with its 95% interval.

    Args:
        set_a: probabilities and labels of one set.
        set_b: of the other, which may have another number of texts.
        estimate: a key of `estimates.ESTIMATES`, such as "cal/ece", "nll" or "cls/acc".
        bins: of the calibration errors.
        resamples: of the bootstrap.
        seed: of generators of their own.

    Raises:
        InputError: for probabilities and labels that are none, or an unknown estimate.
    """
    named = named_estimate(estimate)
    values, resampled = [], []
    for place, (probs_NC, labels_N) in enumerate((set_a, set_b)):
        check_predictions(probs_NC, labels_N)
        probs_NC, labels_N = probs_NC.detach().cpu(), labels_N.cpu()
        values.append(named.value(probs_NC, labels_N, bins).item())
        sums = {"": named.sums(LabelledSet(probs_NC, labels_N, bins))}
        # Of two seeds, for sets of one size would else be resampled in step, as if paired.
        drawn = bootstrap(sums, len(labels_N), resamples=resamples, seed=2 * seed + place)
        resampled.append(drawn[""])
    value, difference_R = values[0] - values[1], resampled[0] - resampled[1]
    centred_R = difference_R - difference_R.mean()
    return Estimate(
        value,
        value + centred_R.quantile((1 - LEVEL) / 2).item(),
        value + centred_R.quantile((1 + LEVEL) / 2).item(),
    )
