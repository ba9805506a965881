"""One of the two gloo processes of `test_metrics.py`, run as a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torchmetrics import MetricCollection

from calib_ebm.calibration.metrics import BrierDecomposition, SmoothECE, metric_collection
from calib_ebm.calibration.metrics_stored import (
    AURC,
    DebiasedECE,
    EqualMassECE,
    ExcessAURC,
    KSError,
    OutOfDistributionAUROC,
    OutOfDistributionFPR,
    SweepECE,
)


def further(classes: int) -> MetricCollection:
    """Those that no training run logs."""
    return MetricCollection(
        {
            "cal/smooth_ece": SmoothECE(),
            "brier": BrierDecomposition(classes),
            "cal/ece_equal_mass": EqualMassECE(),
            "cal/classwise_mass": EqualMassECE(bins=5, kind="classwise", norm="l2"),
            "cal/ece_debiased_l2": DebiasedECE(),
            "cal/ece_sweep": SweepECE(),
            "cal/ks": KSError(),
            "selective/aurc": AURC(),
            "selective/e_aurc": ExcessAURC(),
        },
        compute_groups=False,
    )


def main(rank: int, rendezvous: Path, predictions: Path, output: Path) -> None:
    dist.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=2)
    stored = torch.load(predictions, weights_only=True)
    metrics = metric_collection(stored["probs"].shape[1], ("acc", "mcc", "f1"))
    more = further(stored["probs"].shape[1])
    ood = {"auroc": OutOfDistributionAUROC(), "fpr": OutOfDistributionFPR()}
    mine = slice(rank, None, 2)  # an odd number: rank 0 has one more
    for probs, labels in zip(
        stored["probs"][mine].split(4), stored["labels"][mine].split(4), strict=True
    ):
        metrics.update(probs, labels)
        more.update(probs, labels)
        for metric in ood.values():
            metric.update(probs[:, 0], labels == 0)
    values = {name: value.item() for name, value in (metrics.compute() | more.compute()).items()}
    values |= {name: metric.compute().item() for name, metric in ood.items()}
    output.write_text(json.dumps(values))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(Path, sys.argv[2:]))
