"""6. Probabilities to act on: what they are worth, and how to mend them after training.

    errors       the estimators, pure functions of probabilities and labels
    bins         the binned sums that every ECE, metric class and diagram is made of
    metrics      torchmetrics classes over the same sums, for batches and for several processes
    intervals    every estimate of a set with its interval and floor; mean differences over seeds
    resample     the bootstrap behind it
    floors       the ECE that a perfectly calibrated model would show on as many texts
    calibrator   what a post-hoc calibrator is
    temperature  the first of them, and the one that does nothing
    temperature_grid, scaling, one_versus_rest, binning   the others
    affine, curves                                        what these are fitted with
    calibrators  all of them by name

Four different figures are called "ECE" (top-label, classwise, pooled, PosCal's); here each has
its own name.
"""
