"""A joint batch and its scores: data and noise apart, and whose labels an energy reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.network import EnergyNetwork, Scores
from calib_ebm.energy.packed import Packed
from calib_ebm.shapes import JointBatch, TokenBatch


class StepScores(NamedTuple):
    """A joint batch, scored: logits of the data, energies of both (None without an energy)."""

    logits_BC: Tensor
    energy_data_B: Tensor | None
    energy_noise_SK: Tensor | None


def score_joint(passes: Packed | Grouped, batch: JointBatch) -> StepScores:
    """Logits and energies of B texts and their S*K noise texts, encoded together."""
    return of_batch(passes(batch.tokens, energy_labels(passes.network, batch)), batch)


def of_batch(scores: Scores, batch: JointBatch) -> StepScores:
    """The scores of a batch's texts, data and noise apart; of texts behind them, none."""
    size = len(batch.label_B)
    logits_BC, energy_B = scores.logits_BC[:size], scores.energy_B
    if energy_B is None:
        return StepScores(logits_BC, None, None)
    if batch.noise_label_SK is None:
        return StepScores(logits_BC, energy_B[:size], None)
    noise = energy_B[size : size + batch.noise_label_SK.numel()]
    return StepScores(logits_BC, energy_B[:size], noise.view(batch.noise_label_SK.shape))


def energy_labels(network: EnergyNetwork, batch: JointBatch) -> Tensor | None:
    """The labels that the energy reads, -1 for rows whose label it must not see."""
    reads = network.energy.reads_labels if network.energy is not None else frozenset()
    if not reads:
        return None
    data_B = batch.label_B if "data" in reads else torch.full_like(batch.label_B, -1)
    if batch.noise_label_SK is None:
        return data_B
    return torch.cat((data_B, batch.noise_label_SK.reshape(-1)))


def data_tokens(batch: JointBatch) -> TokenBatch:
    """The tokens of the B data texts, without the noise."""
    size = len(batch.label_B)
    ids_BT, mask_BT, types_BT, length_B = batch.tokens
    return TokenBatch(
        ids_BT[:size],
        mask_BT[:size],
        None if types_BT is None else types_BT[:size],
        None if length_B is None else length_B[:size],
    )
