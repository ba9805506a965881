"""What to expect on many GPUs, computed: tokens a second, bytes exchanged, memory, noise on disk.

    python scripts/scale.py    # the tables of docs/many_gpus.md
    python scripts/scale.py --tokens-per-second 610000 --between 100    # of one's own

Each assumption is a setting and is printed above the table; the defaults of one GPU were measured
(docs/many_gpus.md). A step takes the host a time to ask for, whatever its size: a floor. Exact are
the numbers of weights (counted in the model itself) and the bytes of a noise text (of the file
format; tests hold them against a bank on disk). A step is taken to last at least as long as
computing or exchanging alone, which is so where both overlap wholly, and at most as long as both
one after the other: the table has both ends.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

SHAPES = {
    "roberta-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "roberta-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
MNLI_TEXTS = 392_702
"""Pairs of MNLI's training set (Williams, Nangia and Bowman, NAACL 2018)."""
BYTES_OF_TEXT, BYTES_OF_TOKEN = 20, 4
"""Of a noise text in a bank: two offsets, label, source; and int32 for each token."""
BYTES_OF_WEIGHT = 16
"""Weight, gradient and both moments of AdamW, each in float32."""


class Model(NamedTuple):
    """An encoder with its classifier, as far as its size matters."""

    name: str
    weights: int
    layers: int
    flops_of_token: float
    """Forward and backward: 6 for each weight that multiplies (Kaplan et al. 2020), embeddings
    left out, and 12 * layers * width for each token that is attended to."""


def model_of(name: str, tokens: float) -> Model:
    """Counted on a model without memory for its weights.

    Args:
        name: of `SHAPES`.
        tokens: that a text has, on the mean.
    """
    shape = SHAPES[name]
    config = AutoConfig.for_model(
        "roberta",
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        intermediate_size=4 * shape["hidden_size"],
        num_labels=3,
        **shape,
    )
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    sizes = {key: value.numel() for key, value in model.named_parameters()}
    multiplied = sum(size for key, size in sizes.items() if "embeddings" not in key)
    attended = 12 * shape["num_hidden_layers"] * shape["hidden_size"] * tokens
    return Model(name, sum(sizes.values()), shape["num_hidden_layers"], 6 * multiplied + attended)


class Cluster(NamedTuple):
    """What is assumed of the machines."""

    tokens_per_second: float
    """That one GPU trains on, alone."""
    within: float
    """Bytes a second that a GPU sends to another of its machine."""
    between: float
    """Bytes a second that a GPU's own network link sends to another machine."""
    per_machine: int
    host: float = 0.0
    """Seconds that the host needs to ask a GPU for a step."""


class Load(NamedTuple):
    """What a step holds."""

    batch: int
    """B, texts of the task, over all GPUs."""
    share: float
    """S/B, of texts with noise."""
    per_text: int
    """K."""
    tokens: float
    """Of a text, on the mean."""

    @property
    def tokens_of_step(self) -> float:
        """Data and noise."""
        return self.batch * (1 + self.share * self.per_text) * self.tokens


class Expected(NamedTuple):
    """Of a number of GPUs."""

    gpus: int
    batch: int
    computing: float
    """Seconds of a step."""
    exchanging: float
    fastest: float
    """Tokens a second of all GPUs, where exchanging hides behind computing."""
    slowest: float
    """The same where it does not."""
    efficiency: tuple[float, float]
    """Of the slowest and the fastest: share of `gpus` times one GPU."""


def exchanged(weights: int, gpus: int) -> float:
    """Bytes that each GPU sends for a step's gradients, float32: a ring's all-reduce.

    Patarasuk and Yuan (2009): 2 (N - 1) / N of the array.

    >>> exchanged(100, 1), exchanged(100, 2), exchanged(100, 8)
    (0.0, 400.0, 700.0)
    """
    return 2 * (gpus - 1) / gpus * 4 * weights


def expect(
    model: Model, load: Load, cluster: Cluster, gpus: int, alone: Load | None = None
) -> Expected:
    """Bounds for data-parallel training; the narrowest place of the rings counts.

    Between machines as many rings run side by side as a machine has links, each with its part of
    the gradients, so that these links add up. Latencies are left out.

    Args:
        model: what is trained.
        load: a step of all GPUs together.
        cluster: the machines.
        gpus: how many.
        alone: a step of one GPU, which the ideal is a multiple of; None for `load`.
    """
    several = gpus > cluster.per_machine
    link = min(cluster.within, cluster.between * cluster.per_machine) if several else cluster.within
    computing = max(cluster.host, load.tokens_of_step / gpus / cluster.tokens_per_second)
    exchanging = exchanged(model.weights, gpus) / link
    slowest = load.tokens_of_step / (computing + exchanging)
    fastest = load.tokens_of_step / max(computing, exchanging)
    tokens = (load if alone is None else alone).tokens_of_step
    ideal = gpus * tokens / max(cluster.host, tokens / cluster.tokens_per_second)
    return Expected(
        gpus,
        load.batch,
        computing,
        exchanging,
        fastest,
        slowest,
        (slowest / ideal, fastest / ideal),
    )


def bank_bytes(texts: int, epochs: float, share: float, per_text: int, tokens: float) -> float:
    """Of the noise of a training on the disk.

    >>> bank_bytes(1000, 1, 0.25, 8, 40)
    360000.0
    """
    return texts * epochs * share * per_text * (BYTES_OF_TEXT + BYTES_OF_TOKEN * tokens)


def machine_table(model: Model, given: argparse.Namespace) -> list[str]:
    """Markdown: a row for each number of GPUs and way of choosing the batch."""
    speed = given.tokens_per_second or given.reached * given.ceiling * 1e12 / model.flops_of_token
    cluster = Cluster(
        speed,
        given.within * 1e9,
        given.between * 1e9,
        given.per_machine,
        given.host / 1e3 * model.layers / 12,
    )
    one = Load(given.batch, given.share, given.per_text, given.tokens)
    lines = [
        f"**{model.name}**: {model.weights / 1e6:.0f} million weights, {speed / 1e3:,.0f} thousand "
        f"tokens a second on one GPU, {exchanged(model.weights, 10**6) / 1e9:.2f} GB sent by each "
        f"GPU a step at most; weights, gradients and moments "
        f"{model.weights * BYTES_OF_WEIGHT / 1e9:.1f} GB a GPU with `ddp`.",
        "",
        "| GPUs | batch | computing, ms | exchanging, ms | million tokens/s | of ideal | `fsdp`: "
        "GB a GPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for gpus in given.gpus:
        for batch in dict.fromkeys((given.batch, given.batch * gpus)):
            if batch % gpus:
                continue
            load = Load(batch, given.share, given.per_text, given.tokens)
            got = expect(model, load, cluster, gpus, one)
            low, high = (f"{100 * value:.0f}" for value in got.efficiency)
            lines.append(
                f"| {gpus} | {batch:,} | {1e3 * got.computing:.2f} | {1e3 * got.exchanging:.1f} | "
                f"{got.slowest / 1e6:.2f} to {got.fastest / 1e6:.2f} | {low} to {high}% | "
                f"{model.weights * BYTES_OF_WEIGHT / gpus / 1e9:.3g} |"
            )
    return [*lines, ""]


def noise_table(given: argparse.Namespace) -> list[str]:
    """Markdown: what the noise of MNLI takes on the disk."""
    lines = [
        f"**Noise of MNLI**: {MNLI_TEXTS:,} pairs of {given.tokens:g} tokens, K = "
        f"{given.per_text}, {BYTES_OF_TEXT} + {BYTES_OF_TOKEN} bytes a token for each.",
        "",
        "| epochs of fresh noise | noise for a quarter of each batch, GB | for all, GB |",
        "|---|---|---|",
    ]
    for epochs in (1, 4):
        quarter, whole = (
            bank_bytes(MNLI_TEXTS, epochs, share, given.per_text, given.tokens) / 1e9
            for share in (0.25, 1.0)
        )
        lines.append(f"| {epochs} | {quarter:.2f} | {whole:.2f} |")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    number = parser.add_argument
    number("--gpus", type=int, nargs="+", default=[1, 8, 64, 512], help="numbers of GPUs")
    number("--per-machine", type=int, default=8, help="GPUs of a machine")
    number("--batch", type=int, default=32, help="B, texts of a batch, and of each GPU's")
    number("--share", type=float, default=0.25, help="noise.share")
    number("--per-text", type=int, default=8, help="K, noise.per_text")
    number("--tokens", type=float, default=40, help="tokens of a text, on the mean")
    number("--ceiling", type=float, default=791, help="TFLOP/s of a GPU's matrix units, bf16")
    number("--reached", type=float, default=0.21, help="share of it that a large step reaches")
    number(
        "--host",
        type=float,
        default=45,
        help="ms that the host needs to ask for a step of 12 layers",
    )
    number("--tokens-per-second", type=float, help="of one GPU, measured; in place of both")
    number("--within", type=float, default=450, help="GB/s of a GPU to another of its machine")
    number("--between", type=float, default=50, help="GB/s of a GPU's own link to another machine")
    given = parser.parse_args()
    kept = {key: value for key, value in vars(given).items() if value is not None}
    lines = ["Assumed: " + ", ".join(f"{k.replace('_', '-')} {v}" for k, v in kept.items()), ""]
    for name in SHAPES:
        lines += machine_table(model_of(name, given.tokens), given)
    print("\n".join([*lines, *noise_table(given)]))


if __name__ == "__main__":
    main()
