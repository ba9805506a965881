"""Folding a map of the logits into the last layer, whatever the architecture calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from calib_ebm.energy.encoder import load_encoder
from calib_ebm.energy.fold import Head, find_last_layer, folded_head, with_head

SaveModel = Callable[..., Path]

NAMES = {
    "roberta": "classifier.out_proj",
    "bert": "classifier",
    "distilbert": "classifier",
    "electra": "classifier.out_proj",
    "mpnet": "classifier.out_proj",
    "deberta": "classifier",
    "deberta_absolute": "classifier",
    "deberta_v2": "classifier",
}
MIX = torch.tensor([[0.5, 0.2, 0.0], [0.0, -1.5, 0.1], [0.3, 0.0, 2.0]], dtype=torch.float64)
SHIFT = torch.tensor([0.4, -0.7, 0.1], dtype=torch.float64)


def logits_of(model: nn.Module) -> Callable[[], Tensor]:
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(1))
    model.eval()

    def logits() -> Tensor:
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    return logits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [3, 16])  # 16 is the width, of which other layers are too
def test_every_architecture_s_last_layer_is_found_and_folded(
    name: str, classes: int, save_model: SaveModel
) -> None:
    model = load_encoder(str(save_model(name, classes)), [str(i) for i in range(classes)], {})
    logits = logits_of(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert find_last_layer(model, logits, classes) == NAMES[name]
    layer = model.get_submodule(NAMES[name])
    assert isinstance(layer, nn.Linear)
    weight, bias = torch.eye(classes).double(), torch.zeros(classes).double()
    weight[:3, :3], bias[:3] = MIX, SHIFT
    plain = logits()
    head = folded_head(layer, weight, bias, logits)
    assert head is not None
    for key, value in model.state_dict().items():
        assert value.equal(before[key]), key  # trying it out left nothing behind
    with with_head(layer, head):
        wanted = plain.double() @ weight.T + bias
        torch.testing.assert_close(logits().double(), wanted, atol=1e-5, rtol=0)
        assert (logits() - plain).abs().max() > 0.05
    assert logits().equal(plain)


class Pooled(nn.Module):
    """A head of which the logits are not the output: the last token's are picked from it."""

    def __init__(self, pick: bool, bias: bool = True) -> None:
        super().__init__()
        self.pick = pick
        self.hidden = nn.Parameter(torch.randn(4, 7, 5))
        self.score = nn.Linear(5, 3, bias=bias)

    def logits(self) -> Tensor:
        with torch.inference_mode():
            if self.pick:
                return self.score(self.hidden)[:, -1]
            return self.score(self.hidden[:, -1])


def test_a_head_whose_output_is_not_the_logits_is_left_alone() -> None:
    picked, plain = Pooled(pick=True), Pooled(pick=False)
    assert find_last_layer(picked, picked.logits, 3) is None
    assert find_last_layer(plain, plain.logits, 3) == "score"
    assert find_last_layer(plain, plain.logits, 4) is None


def test_without_a_bias_slopes_fold_and_biases_do_not() -> None:
    model = Pooled(pick=False, bias=False)
    assert folded_head(model.score, MIX, SHIFT, model.logits) is None
    head = folded_head(model.score, MIX, torch.zeros(3).double(), model.logits)
    assert head is not None and head.bias_C is None


@pytest.mark.parametrize("size", [float("nan"), 1e300])
def test_a_map_that_floats_cannot_hold_is_not_folded(size: float) -> None:
    model = Pooled(pick=False)
    assert folded_head(model.score, size * MIX, SHIFT, model.logits) is None


def test_a_layer_that_is_not_where_the_logits_come_from_fails_the_trial() -> None:
    model = Pooled(pick=False)
    other = nn.Linear(5, 3)
    assert folded_head(other, MIX, SHIFT, model.logits) is None


def test_near_is_rounding_and_nothing_more() -> None:
    head = Head(torch.randn(3, 5), torch.randn(3))
    assert head.near(Head(head.weight_CH * (1 + 1e-6), head.bias_C))
    assert not head.near(Head(head.weight_CH * 1.01, head.bias_C))
    assert not head.near(Head(head.weight_CH, None))
    assert not head.near(Head(head.weight_CH[:2], head.bias_C[:2]))  # type: ignore[index]
