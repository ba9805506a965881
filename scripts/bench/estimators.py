"""Estimators over any number of made-up predictions, a batch at a time: seconds and peak memory.

    python scripts/bench/estimators.py NAME PREDICTIONS      # prints JSON

NAME is one of `METRICS`; two classes, batches of 65,536. Predictions are drawn while they are
needed, which is not timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

BATCH = 65_536
CLASSES = 2


def _ours(name: str) -> Callable[[], Any]:
    def build() -> Any:
        from calib_ebm.calibration import metrics, metrics_stored

        kind = getattr(metrics, name, None) or getattr(metrics_stored, name)
        return kind(CLASSES) if name in ("ClasswiseECE", "BrierDecomposition") else kind()

    return build


def _theirs() -> Any:
    from torchmetrics.classification import MulticlassCalibrationError

    return MulticlassCalibrationError(CLASSES, n_bins=20)


OURS = (
    "TopLabelECE",
    "ClasswiseECE",
    "PooledECE",
    "SmoothECE",
    "NLL",
    "Brier",
    "BrierDecomposition",
    "EqualMassECE",
    "SweepECE",
)
METRICS: dict[str, Callable[[], Any]] = {
    **{name: _ours(name) for name in OURS},
    "torchmetrics": _theirs,
}


def main(name: str, predictions: int) -> None:
    """Update over all, compute, and print what it took."""
    import torch

    from calib_ebm.learn.record import peak_memory_mb

    torch.set_num_threads(1)
    metric = METRICS[name]()
    draw = torch.Generator().manual_seed(0)
    seconds = 0.0
    for start in range(0, predictions, BATCH):
        size = min(BATCH, predictions - start)
        p_B = torch.rand(size, generator=draw)
        labels_B = (torch.rand(size, generator=draw) < p_B).long()
        probs_BC = torch.stack([1 - p_B, p_B], dim=1)
        begun = time.process_time()
        metric.update(probs_BC, labels_B)
        seconds += time.process_time() - begun
    begun = time.process_time()
    value = metric.compute()
    seconds += time.process_time() - begun
    found = value if isinstance(value, dict) else {name: value}
    peak = peak_memory_mb()
    values = {key: float(each) for key, each in found.items()}
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "values": values}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
