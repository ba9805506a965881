"""Joint masked-LM learning: one further encoder pass a step, over the data texts with masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from calib_ebm.energy.encoder import SMALL
from calib_ebm.energy.groups import Grouped
from calib_ebm.energy.masked_lm import MaskedLmHead, Pretrained, masked_lm_head
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed
from calib_ebm.errors import InputError
from calib_ebm.loss.joint import Term
from calib_ebm.loss.language import LanguageOptions, mlm_loss, mlm_teacher_loss, tie_loss
from calib_ebm.shapes import TokenBatch
from calib_ebm.tokens.tokenizer import TextTokenizer

NAME = "joint_mlm"
MASKED, RANDOM = 0.8, 0.1
"""Of the tokens to be predicted, shares that are masked and replaced at random; the rest stay, as
in BERT (Devlin et al., 2019)."""


class Vocabulary(NamedTuple):
    """What masking has to know of a vocabulary."""

    mask_id: int
    content_S: Tensor
    """Ids of all pieces but the special tokens."""


def masked(
    tokens: TokenBatch, vocabulary: Vocabulary, mask_rate: float
) -> tuple[TokenBatch, Tensor]:
    """The texts with masks, and which tokens are to be predicted, a boolean (B, T).

    Each content token is chosen with the same probability, and at least one of a batch, so that
    the loss is there at every step. Draws come from torch's random numbers, which the training
    seeds at each step.
    """
    ids_BT = tokens.input_ids_BT
    content_S = vocabulary.content_S.to(ids_BT.device)
    content_BT = torch.isin(ids_BT, content_S) & tokens.attention_mask_BT.bool()
    draw_BT = torch.rand(ids_BT.shape, device=ids_BT.device).masked_fill(~content_BT, 2.0)
    # The smallest draw is chosen anyway if any is.
    slot_BT = ((draw_BT < mask_rate) | (draw_BT == draw_BT.min())) & content_BT
    how_BT = torch.rand(ids_BT.shape, device=ids_BT.device)
    random_BT = content_S[torch.randint(len(content_S), ids_BT.shape, device=ids_BT.device)]
    shown_BT = torch.where(slot_BT & (how_BT < MASKED), vocabulary.mask_id, ids_BT)
    replaced_BT = slot_BT & (how_BT >= MASKED) & (how_BT < MASKED + RANDOM)
    shown_BT = torch.where(replaced_BT, random_BT, shown_BT)
    return tokens._replace(input_ids_BT=shown_BT), slot_BT


class LanguageTask(nn.Module):
    """The terms of joint masked-LM learning.

    Args:
        head: of the masked LM; None where only the tie is asked for.
        pretrained: frozen copies; None where nothing is asked of them.
        vocabulary: what may be masked.
        mask_rate: share of tokens that are masked.
        mlm_weight: of the masked-LM loss.
        tie_weight: of the tie.
    """

    def __init__(
        self,
        head: MaskedLmHead | None,
        pretrained: Pretrained | None,
        vocabulary: Vocabulary,
        *,
        mask_rate: float,
        mlm_weight: float,
        tie_weight: float,
    ) -> None:
        super().__init__()
        self.head, self.pretrained, self.vocabulary = head, pretrained, vocabulary
        self.mask_rate, self.mlm_weight, self.tie_weight = mask_rate, mlm_weight, tie_weight

    def forward(self, passes: Packed | Grouped, tokens: TokenBatch) -> list[Term]:
        """The weighted terms for B data texts."""
        shown, slot_BT = masked(tokens, self.vocabulary, self.mask_rate)
        is_real_BT = tokens.attention_mask_BT.bool()
        slot_N, token_N = slot_BT[is_real_BT], tokens.input_ids_BT[is_real_BT]
        hidden_NH = passes.hidden(shown)
        before_NH = teacher = None
        if self.pretrained is not None:
            before = self.pretrained.to(slot_BT.device)
            with torch.no_grad():
                before_NH = passes.hidden(shown, before.encoder)
                teacher = None if before.head is None else _wide(before.head(before_NH[slot_N]))
        terms = []
        if self.head is not None:
            logits = _wide(self.head(hidden_NH[slot_N]))
            mlm = (
                mlm_loss(logits, token_N[slot_N])
                if teacher is None
                else mlm_teacher_loss(logits, teacher)
            )
            terms.append(Term("mlm", self.mlm_weight, mlm))
        if self.tie_weight > 0:
            assert before_NH is not None, "there are frozen copies where a tie is asked for"
            tie = tie_loss(_wide(hidden_NH), _wide(before_NH))
            terms.append(Term("tie", self.tie_weight, tie))
        return terms


def _wide(values: Tensor) -> Tensor:
    """In float32 at least: losses are computed so whatever the precision."""
    return values if values.dtype.itemsize >= 4 else values.float()


def language_options(settings: Mapping[str, Any]) -> LanguageOptions | None:
    """Of the `loss` group; None where another loss is chosen.

    Raises:
        InputError: for a setting out of its range.
    """
    if settings["name"] != NAME:
        return None
    tie = settings["tie_weight"]
    return LanguageOptions(
        float(settings["mlm_weight"]),
        None if tie is None else float(tie),
        float(settings["mask_rate"]),
        str(settings["targets"]),
    )


def build_language_task(
    config: Mapping[str, Any], tokenizer: TextTokenizer, network: EnergyNetwork
) -> tuple[LanguageTask | None, list[str]]:
    """The task of `loss=joint_mlm`, and sentences for the person; None for other losses.

    Args:
        config: the resolved settings.
        tokenizer: the encoder's.
        network: with the pretrained weights, not trained yet.

    Raises:
        InputError: when the tokenizer has no mask, or a teacher is asked for that is not there.
    """
    options = language_options(config["loss"])
    if options is None:
        return None, []
    name = str(config["encoder"]["name_or_path"])
    vocabulary, notes = _vocabulary(tokenizer, name), []
    head = None
    if options.mlm_weight > 0:
        head = masked_lm_head(name, network.classifier, config["encoder"]["options"])
        if not head.trained and name != SMALL:
            notes.append(
                f"{name} has no masked LM's head: one with new weights, tied to its input "
                "embeddings, learns the masked tokens themselves."
            )
    teacher = _teacher(options.targets, head, name)
    tie = options.tie_weight
    if tie is None:
        tie = 0.0 if name == SMALL else 1.0
        if name == SMALL:
            notes.append(
                "The small encoder begins with random weights, to which its representations are "
                "not tied (loss.tie_weight=1 would)."
            )
    needed = teacher is not None or tie > 0
    return LanguageTask(
        head,
        Pretrained(network.encoder, teacher) if needed else None,
        vocabulary,
        mask_rate=options.mask_rate,
        mlm_weight=options.mlm_weight,
        tie_weight=tie,
    ), notes


def _teacher(targets: str, head: MaskedLmHead | None, name: str) -> MaskedLmHead | None:
    if head is None or targets == "labels":
        return None
    if not head.trained and targets == "teacher":
        raise InputError(
            f"loss.targets is 'teacher', and {name} has no trained masked LM's head.",
            "auto, labels",
            "Set loss.targets=labels, or choose a masked LM as encoder.",
        )
    return head if head.trained else None


def _vocabulary(tokenizer: TextTokenizer, name: str) -> Vocabulary:
    if tokenizer.mask_id is None:
        raise InputError(
            f"loss=joint_mlm needs a mask token, and the tokenizer of {name!r} has none.",
            "encoders that were trained as masked LMs",
            "Choose another encoder or another loss.",
        )
    content = sorted({*tokenizer.vocabulary.values()} - tokenizer.special_ids)
    return Vocabulary(tokenizer.mask_id, torch.tensor(content))
