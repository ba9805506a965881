"""The classification head is found in any architecture, and read again with other input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from calib_ebm.energy.encoder import load_encoder
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.pooled import PooledHead, find_head
from calib_ebm.errors import InputError
from calib_ebm.shapes import TokenBatch

NAMES = ["roberta", "bert", "distilbert", "electra", "mpnet", "deberta", "deberta_v2"]


@pytest.mark.parametrize("name", NAMES)
def test_the_head_read_again_gives_the_logits_and_follows_a_change(
    name: str, save_model: Callable[..., Path]
) -> None:
    classifier = load_encoder(str(save_model(name, 3)), ("a", "b", "c"), {}).eval()
    pooled = PooledHead(classifier)
    ids_BT = torch.randint(5, 50, (4, 6))
    tokens = TokenBatch(ids_BT, torch.ones_like(ids_BT), None)
    logits_BC = EnergyNetwork(classifier, None)(tokens).logits_BC
    assert torch.equal(pooled.again(4, lambda h: h), logits_BC)
    torch.testing.assert_close(pooled.again(2, lambda h: h), logits_BC[:2])
    torch.testing.assert_close(pooled.again(4, lambda h: h[[1, 0, 3, 2]]), logits_BC[[1, 0, 3, 2]])
    halves = pooled.again(2, lambda h: 0.5 * h + 0.5 * h[[1, 0]])
    torch.testing.assert_close(halves[0], halves[1])
    assert not torch.allclose(halves[0], logits_BC[0])
    # What is kept is that of the last pass.
    other = EnergyNetwork(classifier, None)(tokens._replace(input_ids_BT=ids_BT.roll(1, 0)))
    assert torch.equal(pooled.again(4, lambda h: h), other.logits_BC)


def test_finding_it_leaves_the_model_as_it_was(save_model: Callable[..., Path]) -> None:
    classifier = load_encoder(str(save_model("bert")), ("a", "b"), {}).train()
    state = torch.random.get_rng_state()
    find_head(classifier)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(part.training for part in classifier.modules())


def test_a_classifier_that_picks_its_logits_from_all_tokens_is_refused() -> None:
    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, pad_token_id=1)
    with pytest.raises(InputError, match="nothing to mix"):
        PooledHead(GPT2ForSequenceClassification(config))
