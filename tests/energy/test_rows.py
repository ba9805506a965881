"""Attention of rows without padding: what is handed to the kernel, and on a GPU the kernel."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from calib_ebm.energy import packing as room
from calib_ebm.energy.attend import SHORT, Ends, attend_in_row, takes_rows
from calib_ebm.energy.groups import trimmed
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.learn.joint_scores import data_tokens
from calib_ebm.shapes import JointBatch, TokenBatch
from tests.energy.test_packed import PACKED, network, tokens

LENGTHS = [3, 11, 2, 7, 7, 1, 9]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def by_text(
    query: Tensor, key: Tensor, value: Tensor, ends: Ends, dropout: float, scaling: float | None
) -> Tensor:
    """The same, a text at a time, and what the kernel takes for granted."""
    for end, most, rows in (
        (ends.queries, ends.most_queries, query),
        (ends.keys, ends.most_keys, key),
    ):
        assert end.dtype == torch.int32
        assert end[0] == 0 and end[-1] == len(rows) and end.diff().max() == most
    asked, seen = (end.diff().tolist() for end in ends[:2])
    out = []
    for q, k, v in zip(query.split(asked), key.split(seen), value.split(seen), strict=True):
        heads = (each.transpose(0, 1)[None] for each in (q, k, v))
        out.append(scaled_dot_product_attention(*heads, dropout_p=dropout, scale=scaling))
    return torch.cat([each[0].transpose(0, 1) for each in out])


@pytest.mark.parametrize("kind", [*PACKED])
@pytest.mark.parametrize("known", [True, False])
def test_scores_by_rows_are_those_of_an_ordinary_pass(
    kind: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, with the kernel's place taken by a loop over texts; gradients too."""
    net, batch = network(kind), tokens(LENGTHS, types=kind == "bert")
    if known:
        batch = batch._replace(length_B=batch.attention_mask_BT.sum(dim=1).numpy())
    expected = net(batch)
    names, parameters = zip(*net.named_parameters(), strict=True)
    wanted = torch.autograd.grad(loss_of(expected), parameters, allow_unused=True)
    calls: list[int] = []

    def counted(query: Tensor, key: Tensor, value: Tensor, ends: Ends, *further: Any) -> Tensor:
        calls.append(ends.most_queries)
        return by_text(query, key, value, ends, *further)

    monkeypatch.setattr(room, "takes_rows", lambda *_: True)
    monkeypatch.setattr(room, "attend_in_row", counted)
    ours = Packed(net, 3)(batch)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    grads = torch.autograd.grad(loss_of(ours), parameters, allow_unused=True)
    for name, grad, want in zip(names, grads, wanted, strict=True):
        if want is None:
            assert grad is None, name
        else:
            torch.testing.assert_close(grad, want, rtol=1e-8, atol=1e-8)
    # Both layers; of DistilBERT's last one all tokens.
    assert calls == [11, 11] if kind == "distilbert" else [11, 1]


def loss_of(scores: Any) -> Tensor:
    """A number that every output moves."""
    weight_B = torch.linspace(-1, 2, len(scores.energy_B)).to(scores.energy_B)
    total: Tensor = scores.logits_BC.square().sum() + (weight_B * scores.energy_B).sum()
    return total


def heads(dtype: torch.dtype = torch.bfloat16, width: int = 64, is_cuda: bool = True) -> Any:
    """What is asked of a query, a key or a value."""
    return SimpleNamespace(is_cuda=is_cuda, dtype=dtype, shape=(5, 3, width), device=None)


def test_rows_are_for_gpus_from_ampere_on_and_for_one_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before Ampere there are no such kernels; what differs in precision they read as it lies."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert takes_rows(heads(dtype), heads(dtype), heads(dtype))
    for other in (
        heads(is_cuda=False),
        heads(torch.float64),
        heads(width=20),
        heads(width=264),
    ):
        assert not takes_rows(other, other, other)
    assert not takes_rows(heads(torch.float32), heads(torch.float32), heads())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not takes_rows(heads(), heads(), heads())


LONG = [*LENGTHS, 3 * SHORT // 2]
"""For which there is another kernel."""


def rows_on_a_gpu(width: int, lengths: list[int]) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    rows = [
        torch.randn(sum(lengths), 3, width, device="cuda", dtype=torch.bfloat16).requires_grad_()
        for _ in range(3)
    ]
    ends = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
    return rows, ends


@on_a_gpu
@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("lengths", [LENGTHS, LONG])
def test_the_kernel_is_attention_text_by_text(width: int, first: bool, lengths: list[int]) -> None:
    """As near to float64 as bfloat16 comes, where neighbours' tokens would be far from it."""
    (q, k, v), ends = rows_on_a_gpu(width, lengths)
    assert takes_rows(q, k, v)
    asked = torch.arange(len(lengths) + 1, device="cuda").int() if first else ends
    query = q[ends[:-1].long()] if first else q
    given = (Ends(asked, ends, 1 if first else max(lengths), max(lengths)), 0.0, None)
    found, exact = (
        attend_in_row(query, k, v, *given),
        by_text(*(each.detach().double().requires_grad_() for each in (query, k, v)), *given),
    )
    assert error(found, exact) < 1e-2
    assert error(found.roll(1, 0), exact) > 0.5
    ours = torch.autograd.grad(found.square().sum(), (q, k, v))
    exact_in = [each.detach().double().requires_grad_() for each in (q, k, v)]
    again = by_text(exact_in[0][ends[:-1].long()] if first else exact_in[0], *exact_in[1:], *given)
    theirs = torch.autograd.grad(again.square().sum(), exact_in)
    for grad, want in zip(ours, theirs, strict=True):
        assert error(grad, want) < 2e-2


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative, over all elements."""
    return float((found.double() - wanted).norm() / wanted.norm())


@on_a_gpu
@pytest.mark.parametrize("lengths", [LENGTHS, LONG])
def test_dropout_in_the_kernel_keeps_the_mean_and_follows_the_seed(lengths: list[int]) -> None:
    (q, k, v), ends = rows_on_a_gpu(32, lengths)
    given = Ends(ends, ends, max(lengths), max(lengths))
    exact = attend_in_row(q, k, v, given, 0.0, None).detach().double()

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return attend_in_row(q, k, v, given, 0.3, None).detach().double()

    draws = torch.stack([draw(seed) for seed in range(2000)])
    spread = draws.std(dim=0) / 2000**0.5
    assert ((draws.mean(dim=0) - exact).abs() < 5 * spread + 4e-3).all()
    assert (draws[0] - exact).abs().max() > 0.1
    assert torch.equal(draw(3), draws[3])


@on_a_gpu
@pytest.mark.parametrize("kind", [*PACKED])
def test_a_network_on_a_gpu_scores_as_on_the_cpu(kind: str) -> None:
    """In float32 and in bfloat16, both by rows."""
    net, batch = network(kind).float(), tokens(LENGTHS, types=kind == "bert")
    expected = net(batch)
    moved = copy.deepcopy(net).cuda()
    passes = build_passes(moved, 3)
    assert isinstance(passes, Packed)
    there = TokenBatch(*(None if each is None else torch.as_tensor(each).cuda() for each in batch))
    exact = passes(there)
    torch.testing.assert_close(exact.logits_BC.cpu(), expected.logits_BC, rtol=1e-3, atol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        rows, ordinary = passes(there), moved(there)
    assert rows.energy_B is not None and ordinary.energy_B is not None
    assert expected.energy_B is not None
    spread = expected.energy_B.std()
    # Both round as bfloat16 does, each in its own order.
    assert (rows.energy_B.cpu() - expected.energy_B).abs().max() < 0.1 * spread
    assert (ordinary.energy_B.cpu() - expected.energy_B).abs().max() < 0.1 * spread


def test_lengths_that_the_host_knows_are_those_of_the_rows() -> None:
    """Cut out of a batch, too: chunks and data keep the lengths that belong to their rows."""
    batch = tokens(LENGTHS)
    known = batch._replace(length_B=batch.attention_mask_BT.sum(dim=1).numpy())
    rows = torch.tensor([5, 0, 3])
    cut = trimmed(known, rows)
    assert cut.length_B is not None and cut.length_B.tolist() == [1, 3, 7]
    assert cut.input_ids_BT.shape == (3, 7)
    joint = JointBatch(known, torch.zeros(4), torch.arange(4), None)
    data = data_tokens(joint)
    assert data.length_B is not None and data.length_B.tolist() == LENGTHS[:4]
    net = network("roberta")
    torch.testing.assert_close(net(cut), net(trimmed(batch, rows)))
