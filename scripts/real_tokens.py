"""Share of real tokens among those computed, for batches cut into groups by length.

    python scripts/real_tokens.py task=sst2 task.data_dir=GLUE/SST-2 encoder.name_or_path=MINILM

Takes settings as calib_ebm.train does; draws 100 batches of 64 training texts at random and prints
a row of Markdown for each number of groups. 1 is one pass padded to the longest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from calib_ebm.energy.groups import cut_by_length
from calib_ebm.learn.prepare import load_material
from calib_ebm.settings import Settings, compose_and_run

ROWS, BATCHES = 64, 100


def shares(lengths_N: np.ndarray, groups: int) -> float:
    """Real tokens over computed tokens, over all batches."""
    rng = np.random.default_rng(0)
    real = computed = 0
    for _ in range(BATCHES):
        batch = rng.choice(lengths_N, ROWS, replace=False)
        real += int(batch.sum())
        for rows in cut_by_length(batch.tolist(), groups):
            part = batch[rows.numpy()]
            computed += int(part.max()) * len(part)
    return real / computed


def main() -> None:
    """Print the table."""

    def job(settings: Callable[[], Settings], _: str | None) -> None:
        material = load_material(settings())
        special = material.tokenizer.single.size
        lengths_N = np.array(
            [len(text.ids_a) + len(text.ids_b or ()) + special for text in material.train]
        )
        print("| groups | real tokens |\n|---|---|")
        for groups in (1, 2, 4, 6, 8):
            print(f"| {groups} | {shares(lengths_N, groups):.2f} |")

    compose_and_run("train", job)


if __name__ == "__main__":
    main()
