"""What joint masked-LM learning adds to the loss of the labels.

    mlm     over masked tokens, the mean of -log p(token), or of KL(p_pretrained || p)
    tie     over tokens, the mean square of h(x) - h_pretrained(x)

He, Chen & Zhu, ICLR 2023: fine-tuning makes a model forget what pretraining taught it, and with it
how sure it may be. The first keeps it able to predict masked tokens, the second holds its
contextual representations near those of the frozen pretrained encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from calib_ebm.errors import InputError
from calib_ebm.loss.labels import required

TARGETS = ("auto", "teacher", "labels")


def mlm_loss(logits_NV: Tensor, token_N: Tensor) -> Tensor:
    """Mean of -log p(token) over N masked tokens, in nats; 0 where there are none.

    >>> from torch import tensor, zeros
    >>> mlm_loss(zeros(3, 8), tensor([1, 2, 3]))  # log 8
    tensor(2.0794)
    """
    return cross_entropy(logits_NV, token_N, reduction="sum") / max(1, len(token_N))


def mlm_teacher_loss(logits_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """Mean of KL(teacher || model) over N masked tokens, in nats; 0 where there are none.

    Args:
        logits_NV: the model's.
        teacher_NV: the pretrained model's.

    >>> from torch import ones, zeros
    >>> mlm_teacher_loss(zeros(3, 8), ones(3, 8))
    tensor(0.)
    """
    log_p_NV, log_t_NV = logits_NV.log_softmax(dim=-1), teacher_NV.log_softmax(dim=-1)
    return (log_t_NV.exp() * (log_t_NV - log_p_NV)).sum() / max(1, len(logits_NV))


def tie_loss(hidden_NH: Tensor, pretrained_NH: Tensor) -> Tensor:
    """Mean square of the difference over all numbers of N tokens.

    >>> from torch import ones, zeros
    >>> tie_loss(2 * ones(3, 4), zeros(3, 4))
    tensor(4.)
    """
    return (hidden_NH - pretrained_NH).square().mean()


@dataclass(frozen=True)
class LanguageOptions:
    """Settings of joint masked-LM learning, as in `conf/loss/joint_mlm.yaml`."""

    mlm_weight: float = 1.0
    tie_weight: float | None = None
    mask_rate: float = 0.15
    targets: str = "auto"

    def __post_init__(self) -> None:
        required("mlm_weight", self.mlm_weight, 0, float("inf"), 1)
        if self.tie_weight is not None:
            required("tie_weight", self.tie_weight, 0, float("inf"), 1)
        if not 0 < self.mask_rate < 1:
            raise InputError(
                f"loss.mask_rate is {self.mask_rate}.",
                "a number between 0 and 1, both excluded",
                "Set loss.mask_rate=0.15.",
            )
        if self.targets not in TARGETS:
            given = f"loss.targets is {self.targets!r}."
            raise InputError(given, ", ".join(TARGETS), "Set loss.targets=auto.")
