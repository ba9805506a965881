"""One of the two gloo processes of `test_metrics.py`, run as a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from calib_ebm.calibration.metrics import metric_collection


def main(rank: int, rendezvous: Path, predictions: Path, output: Path) -> None:
    dist.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=2)
    stored = torch.load(predictions, weights_only=True)
    metrics = metric_collection(stored["probs"].shape[1], ("acc", "mcc", "f1"))
    mine = slice(rank, None, 2)  # an odd number: rank 0 has one more
    for probs, labels in zip(
        stored["probs"][mine].split(4), stored["labels"][mine].split(4), strict=True
    ):
        metrics.update(probs, labels)
    values = {name: value.item() for name, value in metrics.compute().items()}
    output.write_text(json.dumps(values))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(Path, sys.argv[2:]))
