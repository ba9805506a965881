"""Which noise texts a training text gets: fresh ones, none twice in an epoch."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from calib_ebm.errors import InputError
from calib_ebm.noise.masking import DEALING, stream


def check_per_text(per_text: int) -> int:
    """K, if it is one.

    Raises:
        InputError: when K is no whole number from 1.
    """
    if isinstance(per_text, int) and per_text >= 1:
        return per_text
    raise InputError(
        f"noise.per_text (K) is {per_text}.",
        "a whole number from 1",
        "Set noise.per_text=1; for training without noise choose energy=none.",
    )


@dataclass(frozen=True)
class NoiseOrder:
    """Rows of the bank by place in training.

    The bank is shuffled and dealt out: epoch after epoch takes the next K * `places` rows, and when
    too few are left, the bank is shuffled anew. So nothing repeats within an epoch, nor between
    epochs as long as the bank lasts. A function of (seed, epoch, position) alone: ranks and resumed
    runs agree.

    Args:
        rows: samples in the bank.
        per_text: K.
        places: positions of an epoch (texts of the training set, or of all steps if they are
            fewer).
        seed: of the shuffles.

    Raises:
        InputError: when the bank is smaller than an epoch needs.
    """

    rows: int
    per_text: int
    places: int
    seed: int

    def __post_init__(self) -> None:
        check_per_text(self.per_text)
        needed = self.per_text * self.places
        if needed > self.rows:
            raise InputError(
                f"The bank holds {self.rows} noise texts, and one epoch needs K*N = "
                f"{self.per_text}*{self.places} = {needed}.",
                f"a bank of at least {needed}",
                "Draw more (noise.bank_epochs, noise.bank_size) or lower noise.per_text.",
            )

    def at(self, epoch: int, position: int) -> list[int]:
        """The K rows for the text at a position of an epoch."""
        assert 0 <= position < self.places
        epochs_a_deal = self.rows // (self.per_text * self.places)
        deal, within = divmod(epoch, epochs_a_deal)
        first = (within * self.places + position) * self.per_text
        return _deal(self.seed, deal, self.rows)[first : first + self.per_text].tolist()


@functools.lru_cache(maxsize=2)
def _deal(seed: int, deal: int, rows: int) -> np.ndarray:
    return stream(seed, DEALING, deal).permutation(rows)
