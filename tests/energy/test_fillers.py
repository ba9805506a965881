"""Texts that fill a row change nothing for those in front of them, and make few shapes of many."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_ebm.energy.fillers import COARSE, FEWEST, FINE, MANY, filled, shape_of
from calib_ebm.energy.packed import Packed
from tests.energy.test_packed import Lengths, network, tokens

Many = st.lists(st.integers(1, 128), min_size=1, max_size=300)


@given(Many, st.integers(2, 40))
def test_every_batch_fits_its_shape(lengths: list[int], most: int) -> None:
    """What is lacking can be had from that many texts, each of a token at least."""
    total, length_B = sum(lengths), np.array(lengths)
    shape = shape_of(length_B, most)
    fillers, lacking = shape.texts - len(lengths), shape.tokens - total
    assert 0 < fillers <= lacking <= fillers * most
    assert shape.longest >= max(lengths)
    # Little is computed for nothing: a step between sizes, and a token for each of those texts.
    step = max(FEWEST, total // (FINE if total >= MANY else COARSE))
    assert lacking < step + fillers
    assert fillers <= -(-step // (most - 1))
    batch = tokens(lengths)._replace(length_B=length_B)
    full = filled(batch, shape, 1)
    assert full.length_B is not None
    assert full.length_B.tolist()[: len(lengths)] == lengths
    assert full.length_B[len(lengths) :].max() <= most
    assert full.attention_mask_BT.sum(dim=1).tolist() == full.length_B.tolist()
    assert int(full.length_B.sum()) == shape.tokens and len(full.length_B) == shape.texts


def test_batches_that_are_drawn_alike_have_few_shapes() -> None:
    rng = np.random.default_rng(0)
    drawn = [np.clip(rng.lognormal(2.4, 0.6, 96), 3, 128).astype(int) for _ in range(500)]
    totals = {int(length_B.sum()) for length_B in drawn}
    shapes = {shape_of(length_B) for length_B in drawn}
    assert len(shapes) < 12 < 100 < len(totals)


@given(Lengths)
@settings(max_examples=25, deadline=None)
def test_scores_and_gradients_are_those_without_them(lengths: list[int]) -> None:
    """Token types too; the control is the texts of padding themselves, which do have scores."""
    net = network("bert", "hidden")
    batch = tokens(lengths, types=True)._replace(length_B=np.array(lengths))
    full = filled(batch, shape_of(np.array(lengths)), 0)
    ours, theirs = Packed(net, 3)(full), Packed(net, 3)(batch)
    size, parameters = len(lengths), [*net.parameters()]
    assert ours.energy_B is not None and theirs.energy_B is not None
    torch.testing.assert_close(ours.energy_B[:size], theirs.energy_B, rtol=0, atol=1e-10)
    for mine, other in zip(
        torch.autograd.grad(ours.energy_B[:size].square().sum(), parameters, allow_unused=True),
        torch.autograd.grad(theirs.energy_B.square().sum(), parameters, allow_unused=True),
        strict=True,
    ):
        if other is not None:
            assert mine is not None
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)
    assert len(ours.energy_B) > size and ours.energy_B[size:].abs().min() > 0
