"""What joint masked-LM learning masks: content, at the rate, as BERT does, and at least one."""

from __future__ import annotations

import pytest
import torch

from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.masked_lm import Pretrained, masked_lm_head
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed, build_passes
from calib_ebm.learn.language import LanguageTask, Vocabulary, masked
from calib_ebm.shapes import TokenBatch

PAD, START, END, MASK = 1, 0, 2, 4
VOCABULARY = Vocabulary(MASK, torch.arange(5, 1000))


def batch(rows: int, content: int) -> TokenBatch:
    """Rows of start, content, end and one padding token."""
    ids_BT = torch.randint(5, 1000, (rows, content + 3))
    ids_BT[:, 0], ids_BT[:, -2], ids_BT[:, -1] = START, END, PAD
    return TokenBatch(ids_BT, (ids_BT != PAD).long(), None)


def test_content_is_chosen_at_the_rate_and_shown_as_bert_does() -> None:
    torch.manual_seed(0)
    tokens = batch(400, 50)
    shown, slot_BT = masked(tokens, VOCABULARY, 0.15)
    assert not slot_BT[:, 0].any() and not slot_BT[:, -2:].any()
    assert torch.equal(shown.input_ids_BT[~slot_BT], tokens.input_ids_BT[~slot_BT])
    assert torch.equal(shown.attention_mask_BT, tokens.attention_mask_BT)
    here, before = shown.input_ids_BT[slot_BT], tokens.input_ids_BT[slot_BT]
    drawn = len(here)  # of 20,000: .15 +- 6 standard deviations
    assert abs(drawn / 20_000 - 0.15) < 6 * (0.15 * 0.85 / 20_000) ** 0.5
    shares = {
        0.8: (here == MASK).sum(),
        0.1: (here == before).sum(),  # one in 995 of those replaced is replaced by itself
    }
    for share, count in shares.items():
        assert abs(count.item() / drawn - share) < 0.04
    other = here[(here != MASK) & (here != before)]
    assert abs(len(other) / drawn - 0.1) < 0.04 and (other >= 5).all()


def test_at_least_one_is_chosen_wherever_there_is_content() -> None:
    tokens = batch(2, 3)
    for seed in range(50):
        torch.manual_seed(seed)
        _, slot_BT = masked(tokens, VOCABULARY, 1e-6)
        assert slot_BT.sum() == 1
    empty = TokenBatch(torch.tensor([[START, END]]), torch.ones(1, 2).long(), None)
    assert masked(empty, VOCABULARY, 0.5)[1].sum() == 0


def test_it_is_a_function_of_the_step_s_seed() -> None:
    tokens = batch(4, 20)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(masked(tokens, VOCABULARY, 0.3)[0].input_ids_BT)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("teacher", [True, False])
def test_encoding_in_groups_or_packed_gives_the_same_terms_and_gradients(teacher: bool) -> None:
    torch.manual_seed(0)
    classifier = build_small_encoder(
        ("a", "b"), 1000, PAD, 40, layers=1, width=8, heads=2, dropout=0.0
    )
    network = EnergyNetwork(classifier, None).double()
    head = masked_lm_head("small", classifier, {}).double()
    pretrained = Pretrained(network.encoder, head if teacher else None)
    with torch.no_grad():
        for parameter in (*classifier.parameters(), *head.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens = batch(6, 20)
    for row, length in enumerate((22, 5, 9, 14, 9, 4)):
        tokens.input_ids_BT[row, length:] = PAD
        tokens.attention_mask_BT[row, length:] = 0
    task = LanguageTask(head, pretrained, VOCABULARY, mask_rate=0.3, mlm_weight=0.7, tie_weight=1.3)
    values, grads = [], []
    for passes in (Grouped(network, 1), Grouped(network, 3), build_passes(network, 3)):
        torch.manual_seed(1)
        terms = task(passes, tokens)
        assert [(term.name, term.weight) for term in terms] == [("mlm", 0.7), ("tie", 1.3)]
        values.append(torch.stack([term.value for term in terms]))
        network.zero_grad()
        sum(term.weight * term.value for term in terms).backward()
        grads.append(network.encoder.embeddings.word_embeddings.weight.grad.clone())
    assert isinstance(passes, Packed)
    for other in (1, 2):
        torch.testing.assert_close(values[0], values[other], atol=1e-12, rtol=0)
        torch.testing.assert_close(grads[0], grads[other], atol=1e-12, rtol=0)
    assert (values[0] > 1e-3).all() and grads[0].abs().max() > 1e-3
