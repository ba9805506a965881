"""6. Probabilities to act on: what they are worth, and how to mend them after training.

    errors       the estimators, pure functions of probabilities and labels
    ordered      those that need the order of all confidences: equal mass, the sweep, KS
    smooth       the smooth ECE, which needs no bins
    brier        the terms of the Brier score
    selective    risk and coverage
    ood          in against out of distribution, by energy and by three scores of probabilities
    bins         the binned sums that every ECE, metric class and diagram is made of
    metrics      torchmetrics classes over the same sums, for batches and for several processes
    metrics_stored   those that must keep every prediction
    intervals    every estimate of a set with its interval and floor; mean differences over seeds
    resample     the bootstrap behind it
    estimates    all of them by the names in metrics.json
    compare      two methods on the same texts, over one seed or several; how many texts it takes
    floors       the ECE that a perfectly calibrated model would show on as many texts
    calibrator   what a post-hoc calibrator is
    temperature  the first of them, and the one that does nothing
    temperature_grid, scaling, one_versus_rest, binning   the others
    affine, curves                                        what these are fitted with
    calibrators  all of them by name

Four different figures are called "ECE" (top-label, classwise, pooled, PosCal's); here each has
its own name.
"""
