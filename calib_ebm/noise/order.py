"""Which noise texts a training text gets: fresh ones, none twice in an epoch."""

from __future__ import annotations

from collections.abc import Callable

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


class NoiseOrder:
    """Rows of the bank by place in training.

    The bank is shuffled and dealt out: every epoch takes the next K * `places` rows, and when too
    few are left, the bank is shuffled anew. So nothing repeats within an epoch, nor between epochs
    as long as the bank lasts.

    Within an epoch the shortest noise goes to the shortest texts. The loss sums over data and noise
    apart, so it does not care which noise stands beside which text; but batches are made of texts
    of similar length, and beside noise of any length the gradient of each single batch would say
    above all whether its texts are longer or shorter than noise (conf/experiment/README.md). It
    also saves padding.

    A function of (seed, epoch, position) alone: ranks and resumed runs agree.

    Args:
        noise_lengths_R: tokens of each of the R samples in the bank.
        text_lengths: tokens of the text at each position of an epoch, by the epoch's number; an
            epoch ends with the last step if that comes first.
        per_text: K.
        seed: of the shuffles.

    Raises:
        InputError: when the bank is smaller than an epoch needs.
    """

    def __init__(
        self,
        noise_lengths_R: np.ndarray,
        text_lengths: Callable[[int], np.ndarray],
        per_text: int,
        seed: int,
    ) -> None:
        self.per_text, self.seed = check_per_text(per_text), seed
        self._noise_lengths_R, self._text_lengths = noise_lengths_R, text_lengths
        self.rows, self.places = len(noise_lengths_R), len(text_lengths(0))
        self._kept: dict[int, np.ndarray] = {}
        needed = per_text * self.places
        if needed > self.rows:
            raise InputError(
                f"The bank holds {self.rows} noise texts, and one epoch needs K*N = "
                f"{per_text}*{self.places} = {needed}.",
                f"a bank of at least {needed}",
                "Draw more (noise.bank_epochs, noise.bank_size) or lower noise.per_text.",
            )

    def at(self, epoch: int, position: int) -> list[int]:
        """The K rows for the text at a position of an epoch."""
        assert 0 <= position < self.places
        if epoch not in self._kept:
            self._kept.clear()
            self._kept[epoch] = self._epoch(epoch)
        return self._kept[epoch][position].tolist()

    def _epoch(self, epoch: int) -> np.ndarray:
        """Rows of the epoch, places by K."""
        needed = self.per_text * self.places
        deal, within = divmod(epoch, self.rows // needed)
        shuffled = stream(self.seed, DEALING, deal).permutation(self.rows)
        rows = shuffled[within * needed : (within + 1) * needed]
        # Among equal lengths chance decides, for texts too: in the order of positions, the noise
        # of an epoch's last batches would be the longest.
        by_length = rows[np.argsort(self._noise_lengths_R[rows], kind="stable")]
        ties = stream(self.seed, DEALING, deal, within).random(self.places)
        shortest_first = np.lexsort((ties, self._text_lengths(epoch)))
        dealt = np.empty((self.places, self.per_text), dtype=np.int64)
        dealt[shortest_first] = by_length.reshape(self.places, self.per_text)
        return dealt
