"""The bootstrap over texts, for any number of estimates at once.

A resample of N texts is N whole weights that sum to N. Every estimator here is a function of
weighted sums over texts, so a thousand resamples are one sparse matrix (sums by texts) times a
dense one (texts by resamples), and all estimates see the same resamples. A new estimator needs a
`Sums` of its own and nothing else; what looks at the order of the confidences is a function of the
counts at each of them (`ordered.py`), which are sums too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.calibration.accuracy import ClassCounts
from calib_ebm.calibration.bins import cell_index, equal_width_edges
from calib_ebm.calibration.errors import Pairs

CHUNK = 4_000_000
"""Numbers held at once by one tensor: 32 MB of float64."""


class Entries(NamedTuple):
    """S sums over texts: J entries, each added to its sum as often as its text was drawn."""

    text_J: Tensor
    index_J: Tensor
    value_J: Tensor
    size: int
    """S."""


class Sums(NamedTuple):
    """An estimate as sums; several estimates may be made from the very same `entries`."""

    entries: Entries
    finish: Callable[[Tensor], Tensor]
    """From the sums of R resamples, S by R, to R estimates."""


def mean_sums(value_N: Tensor) -> Sums:
    """The mean over texts of one number per text."""
    texts = len(value_N)
    entries = Entries(torch.arange(texts), torch.zeros(texts).long(), value_N, 1)
    return Sums(entries, lambda sums_SR: sums_SR[0] / texts)


def gap_sums(pairs: Pairs, texts: int, bins: int) -> Sums:
    """The calibration error of probabilities and outcomes, as many rows for each text."""
    probs_PG, outcomes_PG = pairs
    rows, groups = probs_PG.shape
    text_P = torch.arange(rows) // (rows // texts)
    gap_PG = probs_PG.double() - outcomes_PG.double()
    entries = Entries(
        text_P[:, None].expand(rows, groups).reshape(-1),
        cell_index(probs_PG, equal_width_edges(bins, probs_PG)).reshape(-1),
        gap_PG.reshape(-1),
        groups * bins,
    )
    # A resample has as many texts as the set, so all columns keep their count of rows.
    return Sums(entries, lambda sums_SR: sums_SR.abs().sum(dim=0) / (rows * groups))


def count_sums(probs_NC: Tensor, labels_N: Tensor, finish: Callable[[ClassCounts], Tensor]) -> Sums:
    """A metric of the hits, labels and predictions per class."""
    texts, classes = probs_NC.shape
    predicted_N, labels_N = probs_NC.argmax(dim=1), labels_N.long()
    hit_N = (predicted_N == labels_N).double()
    ones_N = torch.ones_like(hit_N)
    entries = Entries(
        torch.arange(texts).repeat(3),
        torch.cat([labels_N, labels_N + classes, predicted_N + 2 * classes]),
        torch.cat([hit_N, ones_N, ones_N]),
        3 * classes,
    )
    return Sums(entries, lambda sums_SR: finish(ClassCounts(*sums_SR.T.split(classes, dim=1))))


def bootstrap(
    sums: dict[str, Sums], texts: int, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Tensor]:
    """Each estimate on R resamples drawn with replacement; float64 of length R.

    Args:
        sums: the estimates by name.
        texts: N, how many texts they sum over.
        resamples: R.
        seed: of a generator of its own; the global one is left alone.
    """
    generator = torch.Generator().manual_seed(seed)
    # What several estimates are made from is summed once.
    entries = {id(each.entries.index_J): each.entries for each in sums.values()}
    matrix_SN = _stacked(list(entries.values()), texts)
    chunk = max(1, min(resamples, CHUNK // max(matrix_SN.shape)))
    parts: dict[str, list[Tensor]] = {name: [] for name in sums}
    for start in range(0, resamples, chunk):
        weights_NR = _weights(texts, min(chunk, resamples - start), generator)
        totals_SR = torch.sparse.mm(matrix_SN, weights_NR)
        blocks = torch.split(totals_SR, [each.size for each in entries.values()])
        block_of = dict(zip(entries, blocks, strict=True))
        for name, each in sums.items():
            parts[name].append(each.finish(block_of[id(each.entries.index_J)]))
    return {name: torch.cat(part_R) for name, part_R in parts.items()}


def _stacked(entries: list[Entries], texts: int) -> Tensor:
    """All sums' entries in one sparse matrix, sums by texts."""
    rows, size = [], 0
    for each in entries:
        rows.append(each.index_J + size)
        size += each.size
    index_2J = torch.stack([torch.cat(rows), torch.cat([each.text_J for each in entries])])
    value_J = torch.cat([each.value_J.double() for each in entries])
    filled_J = value_J != 0  # most outcomes are none
    matrix = torch.sparse_coo_tensor(
        index_2J[:, filled_J], value_J[filled_J], (size, texts), check_invariants=True
    )
    return matrix.coalesce()


def _weights(texts: int, resamples: int, generator: torch.Generator) -> Tensor:
    """How often each text is drawn in each resample, N by R: multinomial columns that sum to N."""
    drawn_RN = torch.randint(texts, (resamples, texts), generator=generator)
    flat = (drawn_RN + texts * torch.arange(resamples)[:, None]).view(-1)
    counts = torch.bincount(flat, minlength=resamples * texts)
    return counts.view(resamples, texts).T.double().contiguous()
