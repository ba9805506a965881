"""One pass over data and noise together is the same as passes apart: in loss, and in gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.learn.joint import mixed_seed
from calib_ebm.learn.joint_scores import score_joint
from calib_ebm.loss.joint import JointLoss
from calib_ebm.loss.nce import nce_loss
from calib_ebm.shapes import Encoded, JointBatch
from calib_ebm.tokens.collate import joint_batch, pad_batch
from calib_ebm.tokens.tokenizer import TextTokenizer, train_tokenizer

B, K = 4, 3
NAMES = ["scalar", "hidden", "sharp_hidden", "labelled", "noise_labelled"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(train_tokenizer(["a cat sat on the mat and it was good"] * 2, 270), 24)


def network(name: str, dropout: float = 0.0) -> EnergyNetwork:
    """The same weights whatever the energy, large enough to matter; float64, in training mode."""
    torch.manual_seed(0)
    classifier = build_small_encoder(
        ("x", "y", "z"), 270, 1, 24, layers=2, width=16, heads=2, dropout=dropout
    )
    classifier.classifier.dropout.p = dropout
    torch.manual_seed(1)
    net = EnergyNetwork(classifier, build_energy(name, 16, dropout)).double().train()
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim == 2:
                parameter *= 8  # from a standard deviation of .02
    return net


def texts() -> tuple[list[Encoded], list[Encoded]]:
    """Data shorter than the longest noise text, so that the common batch pads them further."""
    torch.manual_seed(2)

    def text(length: int, label: int) -> Encoded:
        return Encoded(torch.randint(5, 270, (length,)).tolist(), None, label)

    data = [text(3 + b, b % 3) for b in range(B)]
    noise = [text(2 + (5 * n) % 17, n % 4 - 1) for n in range(B * K)]
    return data, noise


def joint(tokenizer: TextTokenizer) -> JointBatch:
    data, noise = texts()
    return joint_batch(tokenizer, data, list(range(B)), by_text(noise))


def by_text(noise: list[Encoded]) -> list[list[Encoded]]:
    """The K noise texts of each text."""
    return [noise[at : at + K] for at in range(0, len(noise), K)]


def fused(passes: Packed | Grouped, batch: JointBatch) -> Tensor:
    scores = score_joint(passes, batch)
    parts = JointLoss(0.7)(
        scores.logits_BC, batch.label_B, scores.energy_data_B, scores.energy_noise_SK
    )
    return parts.total


def separate(net: EnergyNetwork, tokenizer: TextTokenizer, name: str) -> Tensor:
    """One pass for the data, and one for each column of the noise, each padded for itself."""
    data, noise = texts()
    label_B = torch.tensor([text.label for text in data])
    reads_data = label_B if name == "labelled" else None
    scores = net(pad_batch(tokenizer, data), reads_data)
    columns = []
    for k in range(K):
        column = noise[k::K]
        reads_noise = torch.tensor([text.label for text in column])
        columns.append(net(pad_batch(tokenizer, column), reads_noise).energy_B)
    ce = torch.nn.functional.cross_entropy(scores.logits_BC, label_B)
    return ce + 0.7 * nce_loss(scores.energy_B, torch.stack(columns, dim=1))


def gradients(net: EnergyNetwork, loss: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("how", [Grouped, build_passes])
@pytest.mark.parametrize("groups", [1, 3, 100])
@pytest.mark.parametrize("name", NAMES)
def test_fused_and_separate_passes_agree(
    name: str, groups: int, how: Any, tokenizer: TextTokenizer
) -> None:
    net = network(name)
    theirs = separate(net, tokenizer, name)
    passes = how(net, groups)
    assert isinstance(passes, Packed) == (how is build_passes)
    ours = fused(passes, joint(tokenizer))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    ours_grads, theirs_grads = gradients(net, ours), gradients(net, theirs)
    assert set(ours_grads) == set(theirs_grads) == {n for n, _ in net.named_parameters()}
    for parameter, ours_grad in ours_grads.items():
        torch.testing.assert_close(ours_grad, theirs_grads[parameter], rtol=0, atol=1e-10)
    assert max(grad.abs().max() for grad in ours_grads.values()) > 1e-2


def data_and_noise_changed(batch: JointBatch) -> JointBatch:
    """The noise first: what a wrong split of the rows would see."""
    tokens = batch.tokens
    order = [*range(B * K, B * K + B), *range(B * K)]
    return batch._replace(
        tokens=tokens._replace(
            input_ids_BT=tokens.input_ids_BT[order],
            attention_mask_BT=tokens.attention_mask_BT[order],
        )
    )


def unmasked(batch: JointBatch) -> JointBatch:
    mask_BT = torch.ones_like(batch.tokens.attention_mask_BT)
    return batch._replace(tokens=batch.tokens._replace(attention_mask_BT=mask_BT))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [data_and_noise_changed, unmasked])
def test_a_wrong_batch_is_found_out(
    change: Callable[[JointBatch], JointBatch], name: str, tokenizer: TextTokenizer
) -> None:
    """The control of the test above."""
    net = network(name)
    ours = fused(Grouped(net), change(joint(tokenizer)))
    assert abs(ours - separate(net, tokenizer, name)) > 1e-4


@pytest.mark.parametrize("name", ["labelled", "noise_labelled"])
def test_noise_labels_must_go_with_their_rows(name: str, tokenizer: TextTokenizer) -> None:
    net, batch = network(name), joint(tokenizer)
    assert batch.noise_label_SK is not None
    shifted = batch._replace(noise_label_SK=batch.noise_label_SK.roll(1, dims=1))
    assert abs(fused(Grouped(net), shifted) - separate(net, tokenizer, name)) > 1e-4


def test_with_dropout_they_differ(tokenizer: TextTokenizer) -> None:
    net = network("sharp_hidden", dropout=0.1)
    ours, theirs = fused(Grouped(net), joint(tokenizer)), separate(net, tokenizer, "sharp_hidden")
    assert abs(ours - theirs) > 1e-4
    net.eval()
    ours, theirs = fused(Grouped(net), joint(tokenizer)), separate(net, tokenizer, "sharp_hidden")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_the_energies_of_the_noise_stand_beside_their_texts(
    name: str, tokenizer: TextTokenizer
) -> None:
    net = network(name).eval()
    _, noise = texts()
    scores = score_joint(Grouped(net), joint(tokenizer))
    assert scores.energy_noise_SK is not None
    assert scores.energy_noise_SK.shape == (B, K)
    for b, k in [(0, 0), (1, 2), (3, 1)]:
        text = noise[b * K + k]
        alone = net(pad_batch(tokenizer, [text]), torch.tensor([text.label])).energy_B
        torch.testing.assert_close(scores.energy_noise_SK[b, k], alone[0], rtol=0, atol=1e-10)
    distinct = {round(e, 9) for e in scores.energy_noise_SK.flatten().tolist()}
    assert len(distinct) == B * K


def test_data_labels_are_shown_to_those_energies_only_that_read_them(
    tokenizer: TextTokenizer,
) -> None:
    batch = joint(tokenizer)
    other = batch._replace(label_B=(batch.label_B + 1) % 3)
    for name, moves in [("labelled", True), ("noise_labelled", False), ("hidden", False)]:
        net = network(name)
        before, after = score_joint(Grouped(net), batch), score_joint(Grouped(net), other)
        assert before.energy_data_B is not None
        assert torch.equal(before.energy_data_B, after.energy_data_B) != moves, name
        assert torch.equal(before.energy_noise_SK, after.energy_noise_SK), name


def test_a_batch_may_have_noise_for_some_of_its_texts(tokenizer: TextTokenizer) -> None:
    net = network("hidden")
    data, noise = texts()
    some = joint_batch(tokenizer, data, list(range(B)), by_text(noise)[1:3])
    scores, whole = score_joint(Grouped(net), some), score_joint(Grouped(net), joint(tokenizer))
    assert scores.energy_noise_SK is not None and whole.energy_noise_SK is not None
    assert scores.energy_noise_SK.shape == (2, K)
    # float64 networks: padding to another length is all that differs.
    close = {"rtol": 0.0, "atol": 1e-10}
    torch.testing.assert_close(scores.energy_noise_SK, whole.energy_noise_SK[1:3], **close)
    torch.testing.assert_close(scores.energy_data_B, whole.energy_data_B, **close)
    torch.testing.assert_close(scores.logits_BC, whole.logits_BC, **close)
    assert not torch.allclose(scores.energy_noise_SK, whole.energy_noise_SK[:2])


@pytest.mark.parametrize("with_noise", [True, False])
def test_plain_fine_tuning_has_no_energies(with_noise: bool, tokenizer: TextTokenizer) -> None:
    data, noise = texts()
    batch = joint_batch(tokenizer, data, list(range(B)), by_text(noise) if with_noise else ())
    scores = score_joint(Grouped(network("none")), batch)
    assert scores.logits_BC.shape == (B, 3)
    assert scores.energy_data_B is None
    assert scores.energy_noise_SK is None


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_noise_has_energies_of_data(name: str, tokenizer: TextTokenizer) -> None:
    data, _ = texts()
    net = network(name)
    alone = score_joint(Grouped(net), joint_batch(tokenizer, data, list(range(B))))
    together = score_joint(Grouped(net), joint(tokenizer))
    assert alone.energy_noise_SK is None
    assert alone.energy_data_B is not None
    torch.testing.assert_close(alone.energy_data_B, together.energy_data_B, rtol=0, atol=1e-10)
    torch.testing.assert_close(alone.logits_BC, together.logits_BC, rtol=0, atol=1e-10)


def test_one_pass_is_one_pass(tokenizer: TextTokenizer) -> None:
    net, passes = network("scalar"), []
    net.classifier.register_forward_hook(lambda *_: passes.append(1))
    score_joint(Grouped(net), joint(tokenizer))
    assert len(passes) == 1


def test_every_step_and_rank_has_a_seed_of_its_own() -> None:
    seeds = [mixed_seed(s, t, r) for s in range(4) for t in range(500) for r in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in (*seeds, mixed_seed(2**40, 10**6, 64)))


def test_groups_pad_less_and_take_each_text_once(tokenizer: TextTokenizer) -> None:
    batch = joint(tokenizer)
    net = network("hidden")
    seen: list[Tensor] = []
    net.classifier.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["attention_mask"]), with_kwargs=True
    )
    score_joint(Grouped(net, 1), batch)
    (whole,) = seen
    seen.clear()
    score_joint(Grouped(net, 4), batch)
    assert len(seen) == 4
    assert sum(len(mask_BT) for mask_BT in seen) == B * (1 + K) == len(whole)
    assert sum(int(mask_BT.sum()) for mask_BT in seen) == int(whole.sum())
    assert sum(mask_BT.numel() for mask_BT in seen) < 0.8 * whole.numel()
