"""The head of a masked LM without its encoder does what the whole model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, GPT2Config

from calib_ebm.energy.encoder import build_small_encoder, load_encoder
from calib_ebm.energy.masked_lm import Pretrained, masked_lm_head
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.shapes import TokenBatch

NAMES = ["roberta", "bert", "distilbert", "electra", "mpnet", "deberta", "deberta_v2"]
SaveModel = Callable[..., Path]


def tokens() -> TokenBatch:
    ids_BT = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 1, 1]])
    return TokenBatch(ids_BT, (ids_BT > 1).long(), None)


@pytest.fixture
def save_masked_lm(save_model: SaveModel, tmp_path: Path) -> Callable[[str], Path]:
    """The folder of a random masked LM, of the same size as the classifier's."""

    def build(name: str) -> Path:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(save_model(name))
        torch.manual_seed(3)
        lm = AutoModelForMaskedLM.from_config(config)
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))  # biases too
        folder = tmp_path / f"{name}-lm"
        lm.save_pretrained(folder)
        return folder

    return build


@pytest.mark.parametrize("name", NAMES)
def test_the_head_on_the_classifier_s_encoder_is_the_masked_lm(
    name: str, save_masked_lm: Callable[[str], Path]
) -> None:
    folder = save_masked_lm(name)
    classifier = load_encoder(str(folder), ("no", "yes"), {}).eval()
    head = masked_lm_head(str(folder), classifier, {}).eval()
    assert head.trained
    whole = AutoModelForMaskedLM.from_pretrained(folder).eval()
    batch, slot_BT = tokens(), torch.tensor([[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]).bool()
    with torch.no_grad():
        ours_NV = head(EnergyNetwork(classifier, None).hidden(batch)[slot_BT])
        theirs = whole(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT)
    torch.testing.assert_close(ours_NV, theirs.logits[slot_BT], atol=1e-5, rtol=1e-5)
    assert (ours_NV[0] - ours_NV[1]).abs().max() > 1e-3
    # One matrix for input and output, that of the classifier.
    embeddings = classifier.get_input_embeddings().weight  # type: ignore[operator]  # transformers'
    assert any(parameter is embeddings for parameter in head.parameters())


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_checkpoint_without_the_head_gets_a_fresh_one(name: str, save_model: SaveModel) -> None:
    folder = save_model(name)
    classifier = load_encoder(str(folder), ("no", "yes"), {})
    head = masked_lm_head(str(folder), classifier, {})
    assert not head.trained
    embeddings = classifier.get_input_embeddings().weight  # type: ignore[operator]  # transformers'
    assert any(parameter is embeddings for parameter in head.parameters())
    small = build_small_encoder(("a", "b"), 50, 1, 16, layers=1, width=8, heads=2, dropout=0.1)
    assert not masked_lm_head("small", small, {}).trained


def test_the_copies_stay_as_they_were(save_masked_lm: Callable[[str], Path]) -> None:
    folder = save_masked_lm("roberta")
    classifier: Any = load_encoder(str(folder), ("no", "yes"), {}).eval()
    head = masked_lm_head(str(folder), classifier, {}).eval()
    before = Pretrained(classifier.base_model, head)
    assert before.head is not None
    network, slot_BT = EnergyNetwork(classifier, None), tokens().attention_mask_BT.bool()
    theirs = network.hidden(tokens(), before.encoder)
    assert torch.equal(network.hidden(tokens()), theirs)
    assert torch.equal(head(theirs[slot_BT]), before.head(theirs[slot_BT]))
    with torch.no_grad():
        for parameter in (*classifier.parameters(), *head.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(network.hidden(tokens(), before.encoder), theirs)
    assert not torch.equal(network.hidden(tokens()), theirs)
    assert not torch.equal(head(theirs[slot_BT]), before.head(theirs[slot_BT]))
    assert not any(
        p.requires_grad for p in (*before.encoder.parameters(), *before.head.parameters())
    )
    # Frozen and tied: the copy holds its embeddings once.
    shared = before.encoder.get_input_embeddings().weight  # type: ignore[operator]  # transformers'
    assert any(parameter is shared for parameter in before.head.parameters())


def test_an_architecture_without_a_masked_lm_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, pad_token_id=1)
    folder = tmp_path / "gpt2"
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    classifier = load_encoder(str(folder), ("no", "yes"), {})
    with pytest.raises(InputError, match="needs a masked LM"):
        masked_lm_head(str(folder), classifier, {})
