"""Many texts in one encoder pass without padding: all their tokens in one row.

A plain shuffle puts long and short texts into one batch. Padded to the longest, most of what is
computed is padding; cut into groups (`groups.py`), every group pays for a pass of its own: the
weights are cast again, and the table of embeddings gets another dense gradient. Here the real
tokens of all texts stand in one row, (1, N): layers that look at one token at a time compute
nothing else, and only attention looks back at which text a token is of. It is the one part that is
padded, in groups of similar length, and by far the cheapest at the lengths of sentences.

The encoder's own code runs: transformers lets an attention function be registered, and hands it
what the caller passed along. Whether an architecture bears it (learned or rotary positions, the
label read from the first token) is not assumed but tried: `build_passes` compares the scores of a
few texts with those of an ordinary pass, and takes groups where they differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from calib_ebm.energy.groups import Grouped, cut_by_length
from calib_ebm.energy.network import EnergyNetwork, Scores
from calib_ebm.shapes import TokenBatch

ATTENTION = "calib_ebm_packed"
PACKING = "packing"
"""The keyword by which a `Packing` travels through the encoder to its attention."""
PROBE_LENGTHS = (3, 9, 2, 5, 5, 4)
AGREES = 1e-4
"""By which packed and ordinary scores of the probe may differ."""


class Group(NamedTuple):
    """Texts that attention sees side by side."""

    texts: int
    length: int
    key_mask_G11L: Tensor | None
    """Which keys are real; None where all texts are of one length."""


class Packing(NamedTuple):
    """Where the tokens of B texts stand in a row of N tokens, and in M padded places of attention.

    M is the sum over groups of texts times the longest text's length.
    """

    first_B: Tensor
    """Place of each text's first token in the row."""
    spread_M: Tensor
    """The token in each padded place; in padding, the text's last one."""
    real_N: Tensor
    """The padded place of each token."""
    groups: tuple[Group, ...]


class _Spread(torch.autograd.Function):
    """From the row to the padded places. Padding must get no gradient: attention masks it."""

    @staticmethod
    def forward(ctx: Any, row_N: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return row_N.index_select(0, packing.spread_M)

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None]:
        # Each token once: a copy, where the backward of index_select would have to add.
        return grad_M.index_select(0, ctx.packing.real_N), None


class _Collect(torch.autograd.Function):
    """From the padded places back to the row."""

    @staticmethod
    def forward(ctx: Any, places_M: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return places_M.index_select(0, packing.real_N)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_N: Tensor) -> tuple[Tensor, None]:
        packing: Packing = ctx.packing  # type: ignore[attr-defined]  # set above
        grad_M = grad_N.new_zeros((len(packing.spread_M), *grad_N.shape[1:]))
        return grad_M.index_copy_(0, packing.real_N, grad_N), None


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
    if attention_mask is not None or further.get("sliding_window") is not None:
        # Ignored, the scores would be others; and a mask of N by N would cost more than padding.
        raise ValueError("a packed pass knows which tokens are of one text, and no other mask")
    sizes = [group.texts * group.length for group in packing.groups]
    # Split, not sliced: the gradients are put side by side, not added up in full width.
    query_G, key_G, value_G = (
        _Spread.apply(each.squeeze(0).transpose(0, 1), packing).split(sizes)
        for each in (query, key, value)
    )
    out = []
    for group, *parts in zip(packing.groups, query_G, key_G, value_G, strict=True):
        # (texts, heads, length, width)
        q, k, v = (each.unflatten(0, (group.texts, -1)).transpose(1, 2) for each in parts)
        seen = nn.functional.scaled_dot_product_attention(
            q, k, v, group.key_mask_G11L, dropout_p=dropout, scale=scaling
        )
        out.append(seen.transpose(1, 2).flatten(0, 1))
    row: Tensor = _Collect.apply(torch.cat(out), packing)
    return row.unsqueeze(0), None


def pack(attention_mask_BT: Tensor, groups: int) -> Packing:
    """Where the tokens of right-padded texts stand, with at most so many groups in attention."""
    length_B = attention_mask_BT.sum(dim=1).cpu()
    first_B = length_B.cumsum(0) - length_B
    spread, kept = [], []
    real_N = torch.empty(int(length_B.sum()), dtype=torch.long)
    start = 0
    for rows in cut_by_length(length_B.tolist(), groups):
        length = int(length_B[rows].max())
        place_L = torch.arange(length)
        is_real_GL = place_L < length_B[rows, None]
        token_GL = first_B[rows, None] + torch.minimum(place_L, length_B[rows, None] - 1)
        padded_GL = start + torch.arange(token_GL.numel()).view_as(token_GL)
        real_N[token_GL[is_real_GL]] = padded_GL[is_real_GL]
        mask = None if bool(is_real_GL.all()) else is_real_GL[:, None, None, :]
        spread.append(token_GL.flatten())
        kept.append(Group(len(rows), length, mask))
        start += token_GL.numel()
    device = attention_mask_BT.device
    return Packing(
        first_B.to(device),
        torch.cat(spread).to(device),
        real_N.to(device),
        tuple(
            group._replace(key_mask_G11L=group.key_mask_G11L.to(device))
            if group.key_mask_G11L is not None
            else group
            for group in kept
        ),
    )


class Packed:
    """Scores texts in packed passes of a network.

    Made by `build_passes`. The encoder's attention is exchanged for one that gives the same in an
    ordinary pass.

    Args:
        network: classifier and energy.
        groups: in attention, at most.
    """

    def __init__(self, network: EnergyNetwork, groups: int) -> None:
        self.network, self.groups = network, groups
        self.first_position = _first_position(network.encoder)

    def __call__(self, tokens: TokenBatch, label_B: Tensor | None = None) -> Scores:
        """Logits and energies of B texts, in their order, from one pass.

        Args:
            tokens: padded input.
            label_B: for energies that read labels, as in `EnergyNetwork.forward`.
        """
        encoder = self._prepared(self.network.encoder)
        with encoder.register_forward_hook(_only_first_tokens, with_kwargs=True):
            return self.network.score(self._inputs(tokens), label_B)

    def hidden(self, tokens: TokenBatch, encoder: nn.Module | None = None) -> Tensor:
        """Last hidden states of the N tokens of B texts, (N, H), of this encoder or another.

        Text after text; those of `tokens.attention_mask_BT`, read row by row.
        """
        encoder = self._prepared(self.network.encoder if encoder is None else encoder)
        hidden_NH: Tensor = encoder(**self._inputs(tokens)).last_hidden_state[0]
        return hidden_NH

    def _inputs(self, tokens: TokenBatch) -> dict[str, Any]:
        ids_BT, mask_BT, types_BT = tokens
        # Looked for once: on a GPU each search waits for it.
        place_N = mask_BT.flatten().nonzero()[:, 0]

        def in_a_row(values_BT: Tensor) -> Tensor:
            return values_BT.flatten()[place_N].unsqueeze(0)

        row = TokenBatch(
            in_a_row(ids_BT), in_a_row(mask_BT), None if types_BT is None else in_a_row(types_BT)
        )
        inputs = self.network.inputs(row)
        # Nothing is masked in the row: which tokens see each other is for the attention to know.
        del inputs["attention_mask"]
        position_1N = (place_N % mask_BT.shape[1] + self.first_position).unsqueeze(0)
        return {**inputs, "position_ids": position_1N, PACKING: pack(mask_BT, self.groups)}

    @staticmethod
    def _prepared(encoder: Any) -> Any:
        if encoder.config._attn_implementation != ATTENTION:
            AttentionInterface.register(ATTENTION, packed_attention)
            AttentionMaskInterface.register(ATTENTION, sdpa_mask)
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

    (1, N, H) becomes (B, 1, H), and the pooler, where there is one, reads these.
    """
    first_B = given[PACKING].first_B
    output["last_hidden_state"] = output.last_hidden_state[0, first_B].unsqueeze(1)
    if output.get("hidden_states") is not None:
        *earlier, last_1NH = output["hidden_states"]
        output["hidden_states"] = (*earlier, last_1NH[0, first_B].unsqueeze(1))
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
    if attention != "sdpa":
        # Who asked for another attention shall have it.
        return None
    was_training = network.training
    network.eval()
    packed, fits = Packed(network, groups), False
    try:
        tokens = _probe(encoder)
        expected = _scores(network, tokens)
        # In groups of texts that differ in length, too.
        fits = all(
            _agree(_scores(one, tokens), expected) for one in (packed, Packed(network, 2), network)
        )
    except Exception:
        # An architecture that cannot be packed says so in whatever way it likes.
        fits = False
    finally:
        network.train(was_training)
        if not fits:
            encoder.set_attn_implementation(attention)
    return packed if fits else None


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
