"""Noise-contrastive estimation of an energy, from observed texts and K noise texts for each.

    p(x)  proportional to  p_noise(x) exp(-E(x))              low E: looks observed

Shown a text, and told that noise is K times as frequent as data, the model's log-odds for
"observed" are -E(x) - log K: the noise density stands in numerator and denominator and cancels.
The loss is the binary cross-entropy of that guess, summed over one observed text and its K noise
texts,

    L = mean_data softplus(E + log K)  +  K mean_noise softplus(-E - log K),

smallest at E*(x) = -log(p_data(x) / p_noise(x)).  Sources: Gutmann & Hyvarinen, JMLR 13 (2012);
residual form: Deng et al., ICLR 2020; joint with a classifier: He et al., EACL 2021, equation 6.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import softplus


def nce_loss(energy_data_B: Tensor, energy_noise_SK: Tensor) -> Tensor:
    """Mean over B of softplus(E + log K), plus mean over S of the sum of softplus(-E_k - log K).

    In nats. Finite for any finite energy, unlike log(1 + K exp(E)). The input's precision is kept.

    Both means estimate their part of the loss without bias whatever S is: fewer noise texts than
    K for each observed one make the gradient noisier, and do not change what it points to.

    Args:
        energy_data_B: energies of the observed texts.
        energy_noise_SK: energies of K noise texts for each of S texts, often S = B.

    >>> from torch import zeros
    >>> nce_loss(zeros(4), zeros(4, 3))  # log(1 + 3) + 3 log(1 + 1/3)
    tensor(2.2493)
    """
    is_shaped = energy_noise_SK.ndim == 2 and energy_data_B.ndim == 1
    if not is_shaped or len(energy_noise_SK) > len(energy_data_B):
        raise ValueError(
            f"nce_loss got energies of shapes {tuple(energy_data_B.shape)} and "
            f"{tuple(energy_noise_SK.shape)}; it takes (B,) "
            "for data and (S, K) for noise, S at most B."
        )
    if energy_data_B.numel() < 1 or energy_noise_SK.numel() < 1:
        raise ValueError("nce_loss got no texts or no noise (K = 0); give at least one of each.")
    log_k = math.log(energy_noise_SK.shape[1])
    data_B = softplus(energy_data_B + log_k)
    noise_S = softplus(-energy_noise_SK - log_k).sum(dim=1)
    return data_B.mean() + noise_S.mean()


def nce_noise_part(energy_noise_M: Tensor, texts: int, per_text: int) -> Tensor:
    """What M of the S*K noise texts add to `nce_loss`: sum of softplus(-E - log K), over S.

    The loss is a sum over data and noise apart, so its gradient can be computed part by part.

    Args:
        energy_noise_M: energies of some noise texts.
        texts: S, texts of the batch for which noise was drawn.
        per_text: K, noise texts for each of these.

    >>> from torch import zeros
    >>> nce_noise_part(zeros(6), 4, 3) + nce_noise_part(zeros(6), 4, 3)  # 3 log(1 + 1/3)
    tensor(0.8630)
    """
    return softplus(-energy_noise_M - math.log(per_text)).sum() / texts


def told_apart(
    energy_data_N: Tensor, energy_noise_M: Tensor, per_text: int
) -> tuple[Tensor, Tensor]:
    """Whether each text is taken for what it is: 1 or 0 for N observed and for M noise texts.

    A text is called observed when its log-odds -E - log K are positive.

    Args:
        energy_data_N: energies of observed texts.
        energy_noise_M: energies of noise texts, of any number.
        per_text: K, by which noise was more frequent in training.
    """
    log_k = math.log(per_text)
    return (-energy_data_N - log_k > 0).float(), (-energy_noise_M - log_k <= 0).float()


def nce_accuracy(energy_data_B: Tensor, energy_noise_SK: Tensor) -> Tensor:
    """How often data and noise are told apart; both kinds weigh the same: .5 is chance for any K.

    >>> from torch import tensor
    >>> nce_accuracy(tensor([-1.0, 1.0]), tensor([[1.0], [2.0]]))
    tensor(0.7500)
    """
    data, noise = told_apart(energy_data_B, energy_noise_SK, energy_noise_SK.shape[1])
    return (data.mean() + noise.mean()) / 2
