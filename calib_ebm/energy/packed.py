"""Many texts in one encoder pass without padding: all their tokens in one row.

A plain shuffle puts long and short texts into one batch. Padded to the longest, most of what is
computed is padding; cut into groups (`groups.py`), every group pays for a pass of its own: the
weights are cast again, and the table of embeddings gets another dense gradient. Here the real
tokens of all texts stand in one row, (1, N): layers that look at one token at a time compute
nothing else, and only attention looks back at which text a token is of. On a GPU it has kernels for
such rows; elsewhere it is the one part that is padded, in groups of similar length, and by far the
cheapest at the lengths of sentences.

The encoder's own code runs: transformers lets an attention function be registered, and hands it
what the caller passed along. Whether an architecture bears it (learned or rotary positions, the
label read from the first token) is not assumed but tried: `build_passes` compares the scores of a
few texts with those of an ordinary pass, and takes groups where they differ.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from calib_ebm.energy.first_tokens import first_tokens_only, last_layer
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.network import EnergyNetwork, Scores
from calib_ebm.energy.packing import (
    PACKING,
    Packing,
    first_token_attention,
    pack,
    refuse_other_masks,
    row_attention,
)
from calib_ebm.shapes import TokenBatch

ATTENTION = "calib_ebm_packed"
PROBE_LENGTHS = (3, 9, 2, 5, 5, 4)
AGREES = 1e-4
"""By which packed and ordinary scores of the probe may differ."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **further: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of each text's tokens to the tokens of that text; torch's own for an ordinary pass.

    Args:
        module: the encoder's attention layer.
        query: (1, heads, N, width of a head); key and value likewise.
        key: see query.
        value: see query.
        attention_mask: none in a packed pass.
        dropout: of attention.
        scaling: of the products.
        further: `packing`, and whatever else the encoder hands on.

    Raises:
        ValueError: for attention that is masked or within a window: such an encoder is not packed.
    """
    packing: Packing | None = further.pop(PACKING, None)
    if packing is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **further
        )
    refuse_other_masks(attention_mask, further)
    return row_attention(query, key, value, packing, dropout, scaling), None


def row_mask(batch_size: int, *, attention_mask: Any = None, **further: Any) -> Tensor | None:
    """As transformers has it for `sdpa`; of a pass without padding none, also while it is recorded.

    There transformers leaves out no mask, not knowing whether another padding will come, and one of
    N by N for a row of N tokens costs more than the row.
    """
    unmasked = attention_mask is None and further.get("allow_is_bidirectional_skip")
    if unmasked and further.get("local_size") is None and is_being_recorded():
        return None
    mask: Tensor | None = sdpa_mask(batch_size, attention_mask=attention_mask, **further)
    return mask


def is_being_recorded() -> bool:
    """Whether kernels are being recorded into a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class Packed:
    """Scores texts in packed passes of a network.

    Made by `build_passes`. The encoder's attention is exchanged for one that gives the same in an
    ordinary pass.

    Args:
        network: classifier and energy.
        groups: in attention, at most.
        whole: compute the last layer for all tokens, also where the first ones would do.
    """

    def __init__(self, network: EnergyNetwork, groups: int, *, whole: bool = False) -> None:
        self.network, self.groups, self.whole = network, groups, whole
        self.first_position = _first_position(network.encoder)

    def __call__(self, tokens: TokenBatch, label_B: Tensor | None = None) -> Scores:
        """Logits and energies of B texts, in their order, from one pass.

        Args:
            tokens: padded input.
            label_B: for energies that read labels, as in `EnergyNetwork.forward`.
        """
        return self.of_row(self.row(tokens), label_B)

    def of_row(self, inputs: dict[str, Any], label_B: Tensor | None = None) -> Scores:
        """The same from what `row` gives."""
        encoder = self._prepared(self.network.encoder)
        with (
            self._last_layer_of(encoder, inputs[PACKING]),
            encoder.register_forward_hook(_only_first_tokens, with_kwargs=True),
        ):
            return self.network.score(inputs, label_B)

    def _last_layer_of(self, encoder: nn.Module, packing: Packing) -> AbstractContextManager[None]:
        layer = None if self.whole else last_layer(encoder)
        if layer is None:
            return nullcontext()
        return first_tokens_only(layer, packing.first_B, first_token_attention)

    def hidden(self, tokens: TokenBatch, encoder: nn.Module | None = None) -> Tensor:
        """Last hidden states of the N tokens of B texts, (N, H), of this encoder or another.

        Text after text; those of `tokens.attention_mask_BT`, read row by row.
        """
        encoder = self._prepared(self.network.encoder if encoder is None else encoder)
        hidden_NH: Tensor = encoder(**self.row(tokens)).last_hidden_state[0]
        return hidden_NH

    def row(self, tokens: TokenBatch) -> dict[str, Any]:
        """What the classifier takes of all texts in one row, and the `Packing` of them."""
        packing = pack(tokens, self.groups)
        text_N, position_N = packing.text_N, packing.position_N
        place_N = text_N * tokens.input_ids_BT.shape[1] + position_N

        def in_a_row(values_BT: Tensor) -> Tensor:
            return values_BT.flatten()[place_N].unsqueeze(0)

        types_BT = tokens.token_type_ids_BT
        row = TokenBatch(
            in_a_row(tokens.input_ids_BT),
            in_a_row(tokens.attention_mask_BT),
            None if types_BT is None else in_a_row(types_BT),
        )
        inputs = self.network.inputs(row)
        # Nothing is masked in the row: which tokens see each other is for the attention to know.
        del inputs["attention_mask"]
        position_1N = (position_N + self.first_position).unsqueeze(0)
        return {**inputs, "position_ids": position_1N, PACKING: packing}

    @staticmethod
    def _prepared(encoder: Any) -> Any:
        if encoder.config._attn_implementation != ATTENTION:
            AttentionInterface.register(ATTENTION, packed_attention)
            AttentionMaskInterface.register(ATTENTION, row_mask)
            encoder.set_attn_implementation(ATTENTION)
        return encoder


def _first_position(encoder: nn.Module) -> int:
    """The number of a text's first position: RoBERTa and its kin count from behind the padding."""
    for name, part in encoder.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(part, nn.Embedding):
            return 0 if part.padding_idx is None else part.padding_idx + 1
    return 0


def _only_first_tokens(encoder: Any, _: Any, given: dict[str, Any], output: Any) -> Any:
    """What a packed pass hands to the classifier's head: B rows of one token, the texts' first.

    (1, N, H), or (1, B, H) of a last layer that has computed no other, becomes (B, 1, H), and the
    pooler, where there is one, reads these.
    """
    first_B = given[PACKING].first_B

    def of_texts(last: Tensor) -> Tensor:
        return (last[0] if last.shape[1] == len(first_B) else last[0, first_B]).unsqueeze(1)

    output["last_hidden_state"] = of_texts(output.last_hidden_state)
    if output.get("hidden_states") is not None:
        *earlier, last = output["hidden_states"]
        output["hidden_states"] = (*earlier, of_texts(last))
    if output.get("pooler_output") is not None:
        output["pooler_output"] = encoder.pooler(output["last_hidden_state"])
    return output


def build_passes(network: EnergyNetwork, groups: int, *, one: bool = False) -> Packed | Grouped:
    """How the network's texts are encoded: packed where its encoder bears that, else in groups.

    Args:
        network: classifier and energy; left as it was but for the name of its attention.
        groups: at most, in attention or of passes.
        one: all texts must be in one pass.
    """
    return _build_packed(network, groups) or Grouped(network, 1 if one else groups)


@torch.no_grad()
def _build_packed(network: EnergyNetwork, groups: int) -> Packed | None:
    """Packed passes, or None where they and ordinary ones do not give the same scores."""
    encoder: Any = network.encoder
    attention = getattr(encoder.config, "_attn_implementation", None)
    if attention not in ("sdpa", ATTENTION):
        # Who asked for another attention shall have it.
        return None
    was_training = network.training
    network.eval()
    fitting = None
    try:
        tokens = _probe(encoder)
        expected = _scores(network, tokens)
        for whole in (False, True):
            # In groups of texts that differ in length, too.
            tried = [Packed(network, some, whole=whole) for some in (groups, 2)]
            if fitting is None and all(_fits(one, tokens, expected) for one in (*tried, network)):
                fitting = tried[0]
    finally:
        network.train(was_training)
        if fitting is None:
            encoder.set_attn_implementation(attention)
    return fitting


def _fits(scorer: Any, tokens: TokenBatch, expected: list[Tensor]) -> bool:
    try:
        return _agree(_scores(scorer, tokens), expected)
    except Exception:
        # An architecture that cannot be packed says so in whatever way it likes.
        return False


def _probe(encoder: Any) -> TokenBatch:
    """A few texts of different lengths, of ids that occur in any vocabulary."""
    device = next(encoder.parameters()).device
    length_B = torch.tensor(PROBE_LENGTHS, device=device)
    mask_BT = (torch.arange(max(PROBE_LENGTHS), device=device) < length_B[:, None]).long()
    pad = encoder.config.pad_token_id or 0
    content = [id_ for id_ in range(int(encoder.config.vocab_size)) if id_ != pad][-20:]
    ids_BT = torch.arange(mask_BT.numel(), device=device).view_as(mask_BT) % len(content)
    ids_BT = torch.tensor(content, device=device)[ids_BT]
    return TokenBatch(torch.where(mask_BT.bool(), ids_BT, pad), mask_BT, None)


def _scores(scorer: Any, tokens: TokenBatch) -> list[Tensor]:
    # An energy may draw.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [each for each in scorer(tokens) if each is not None]


def _agree(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=AGREES, atol=AGREES)
        for a, b in zip(ours, theirs, strict=True)
    )
