"""Attention with dropout on a CPU: torch's, but for what is drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from calib_ebm.energy import attend as room
from calib_ebm.energy.attend import attend

TEXTS, HEADS, LENGTH, WIDTH = 3, 2, 5, 4


def heads(seed: int, tokens: int = LENGTH) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(TEXTS, HEADS, tokens, WIDTH, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("queries", [1, LENGTH])
@pytest.mark.parametrize("masked", [True, False])
def test_without_what_is_dropped_it_is_torchs(
    masked: bool, queries: int, scaling: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "drop", lambda values, p: values)
    mask = torch.ones(TEXTS, 1, 1, LENGTH, dtype=torch.bool)
    mask[0, ..., 2:] = mask[1, ..., 4:] = False
    key_mask = mask if masked else None
    found = []
    for how in ("ours", "theirs"):
        q, k, v = heads(0, queries), heads(1), heads(2)
        out = (
            attend(q, k, v, key_mask, 0.1, scaling)
            if how == "ours"
            else scaled_dot_product_attention(q, k, v, key_mask, scale=scaling)
        )
        grads = torch.autograd.grad(out.square().sum(), (q, k, v))
        found.append((out, *grads))
        if masked and how == "ours":
            # What the way back from padded places relies on.
            assert (grads[1][0, :, 2:] == 0).all() and (grads[2][0, :, 2:] == 0).all()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert found[0][1].abs().max() > 1e-2


def test_dropout_of_attention_keeps_the_mean() -> None:
    """Over many draws; the control is the draw itself, which differs."""
    q, k = (heads(seed).detach().expand(-1, -1, -1, -1) for seed in (0, 1))
    v = heads(2).detach()
    torch.manual_seed(0)
    draws = torch.stack([attend(q, k, v, None, 0.3, None) for _ in range(4000)])
    exact = scaled_dot_product_attention(q, k, v)
    error = draws.std(dim=0) / 4000**0.5
    assert ((draws.mean(dim=0) - exact).abs() < 5 * error).all()
    assert (draws[0] - exact).abs().max() > 0.1


def test_bfloat16_is_computed_wide_and_handed_back_as_it_was() -> None:
    q, k, v = (heads(seed).detach().bfloat16() for seed in (0, 1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        ours = attend(q, k, v, None, 0.1, None)
    torch.manual_seed(0)
    wide = attend(q.float(), k.float(), v.float(), None, 0.1, None)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, wide.bfloat16())
