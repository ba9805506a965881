"""Which training texts get noise, and which: fresh noise, none of it twice in an epoch."""

from __future__ import annotations

from collections.abc import Callable
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
class NoisyTexts:
    """Which texts of a batch have noise: the first S of B, in batches whose order is random.

    Args:
        with_noise: S.
        batch: B, texts of a step over all processes.
    """

    with_noise: int
    batch: int

    @classmethod
    def of_share(cls, share: float, batch: int) -> NoisyTexts:
        """S as near to a share of the batch as can be, and at least 1.

        Raises:
            InputError: when the share is not in (0, 1].

        >>> NoisyTexts.of_share(0.25, 32), NoisyTexts.of_share(0.01, 32).with_noise
        (NoisyTexts(with_noise=8, batch=32), 1)
        """
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InputError(
                f"noise.share is {share!r}.",
                "a number above 0 and up to 1: the share of each batch's texts that get noise",
                "Set noise.share=1, the paper's; for training without noise choose energy=none.",
            )
        return cls(max(1, round(share * batch)), batch)

    def at(self, position: int) -> bool:
        """Whether the text at a position of an epoch has noise."""
        return position % self.batch < self.with_noise

    def places(self, positions: int) -> np.ndarray:
        """Those of so many positions of an epoch, whole batches, whose texts have noise."""
        assert positions % self.batch == 0, "an epoch is of whole batches"
        position = np.arange(positions)
        return position[position % self.batch < self.with_noise]

    def count(self, positions: int) -> int:
        """How many of so many positions have noise."""
        return positions // self.batch * self.with_noise


class NoiseOrder:
    """Rows of the bank by place in training.

    The bank is shuffled and dealt out: every epoch takes the next K rows for each place with noise,
    and when too few are left, the bank is shuffled anew. So nothing repeats within an epoch, nor
    between epochs as long as the bank lasts.

    Within an epoch the shortest noise goes to the shortest texts that get any. The loss sums over
    data and noise apart, so it does not care which noise stands beside which text; but batches may
    be made of texts of similar length, and beside noise of any length the gradient of each single
    batch would say above all whether its texts are longer or shorter than noise
    (conf/experiment/README.md). It also saves padding.

    A function of (seed, epoch, position) alone: ranks and resumed runs agree.

    Args:
        noise_lengths_R: tokens of each of the R samples in the bank.
        text_lengths: tokens of the text at each position of an epoch, by the epoch's number; an
            epoch ends with the last step if that comes first.
        per_text: K.
        seed: of the shuffles.
        noisy: which positions have noise; None for all of them.

    Raises:
        InputError: when the bank is smaller than an epoch needs.
    """

    def __init__(
        self,
        noise_lengths_R: np.ndarray,
        text_lengths: Callable[[int], np.ndarray],
        per_text: int,
        seed: int,
        noisy: NoisyTexts | None = None,
    ) -> None:
        self.per_text, self.seed = check_per_text(per_text), seed
        self._noise_lengths_R, self._text_lengths = noise_lengths_R, text_lengths
        self.rows, self.positions = len(noise_lengths_R), len(text_lengths(0))
        self.noisy = NoisyTexts(self.positions, self.positions) if noisy is None else noisy
        self._place_Q = self.noisy.places(self.positions)
        self.places = len(self._place_Q)
        self._kept: dict[int, np.ndarray] = {}
        needed = per_text * self.places
        if needed > self.rows:
            raise InputError(
                f"The bank holds {self.rows} noise texts, and one epoch needs K*N = "
                f"{per_text}*{self.places} = {needed}.",
                f"a bank of at least {needed}",
                "Draw more (noise.bank_epochs, noise.bank_size), or lower noise.per_text or "
                "noise.share.",
            )

    def at(self, epoch: int, position: int) -> list[int]:
        """The K rows for the text at a position of an epoch; none where it has no noise."""
        assert 0 <= position < self.positions
        if not self.noisy.at(position):
            return []
        if epoch not in self._kept:
            self._kept.clear()
            self._kept[epoch] = self._epoch(epoch)
        return self._kept[epoch][position].tolist()

    def _epoch(self, epoch: int) -> np.ndarray:
        """Rows of the epoch, positions by K; -1 where there is no noise."""
        needed = self.per_text * self.places
        deal, within = divmod(epoch, self.rows // needed)
        shuffled = stream(self.seed, DEALING, deal).permutation(self.rows)
        rows = shuffled[within * needed : (within + 1) * needed]
        # Among equal lengths chance decides, for texts too: in the order of positions, the noise
        # of an epoch's last batches would be the longest.
        by_length = rows[np.argsort(self._noise_lengths_R[rows], kind="stable")]
        ties = stream(self.seed, DEALING, deal, within).random(self.places)
        shortest_first = np.lexsort((ties, self._text_lengths(epoch)[self._place_Q]))
        dealt = np.full((self.positions, self.per_text), -1, dtype=np.int64)
        dealt[self._place_Q[shortest_first]] = by_length.reshape(self.places, self.per_text)
        return dealt
