"""From the resolved settings to what is trained: texts, tokens, network, steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calib_ebm.energy.encoder import SMALL, build_small_encoder, load_encoder, longest_input
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.lora import LoraOptions, add_lora
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.learn.early import read_task
from calib_ebm.learn.optimisation import OptimOptions, count_steps
from calib_ebm.loss.choice import build_label_loss
from calib_ebm.loss.gate import LabelGate
from calib_ebm.loss.joint import JointLoss
from calib_ebm.noise.order import NoisyTexts
from calib_ebm.shapes import Encoded
from calib_ebm.text.task import TaskData
from calib_ebm.tokens.kept import encode_kept
from calib_ebm.tokens.order import TrainOrder
from calib_ebm.tokens.tokenizer import (
    TextTokenizer,
    load_tokenizer,
    train_tokenizer,
)

Config = Mapping[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """A task, read and encoded.

    Attributes:
        notes: sentences for the person: rows dropped, texts cut.
    """

    task: TaskData
    tokenizer: TextTokenizer
    train: list[Encoded]
    fit: list[Encoded]
    test: list[Encoded]
    notes: tuple[str, ...]


def load_material(
    config: Config, task: TaskData | None = None, say: Say = lambda line: None
) -> Material:
    """Encode a task's texts with the encoder's tokenizer.

    Args:
        config: the resolved settings.
        task: of these settings; None to read it.
        say: takes lines for the person.

    Raises:
        InputError: for whatever is wrong with the files, the task or the encoder.
    """
    if task is None:
        task = read_task(config).task
    tokenizer = _tokenizer(config, task)
    kept = Path(str(config["cache_dir"])) / "tokens"
    notes = list(task.notes)
    encoded: dict[str, list[Encoded]] = {}
    for name, examples in (("train", task.train), ("fit", task.fit), ("test", task.test)):
        encoded[name], cut = encode_kept(tokenizer, examples, kept, say, notes.append)
        if cut:
            notes.append(
                f"{cut} of {len(examples)} texts of {name} were longer than "
                f"{tokenizer.max_length} tokens and were cut (task.max_length)."
            )
    return Material(task, tokenizer, **encoded, notes=tuple(notes))


def _tokenizer(config: Config, task: TaskData) -> TextTokenizer:
    name = str(config["encoder"]["name_or_path"])
    if name == SMALL:
        texts = [t for e in task.train for t in (e.text, e.text_pair) if t is not None]
        hf = train_tokenizer(texts, int(config["encoder"]["small"]["vocabulary"]))
    else:
        hf = load_tokenizer(name)
    if hf.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {name!r} has no padding token.",
            "tokenizers of encoders (RoBERTa, BERT, ELECTRA, DeBERTa ...)",
            "Choose an encoder: encoder.name_or_path=roberta-base.",
        )
    return TextTokenizer(hf, int(config["task"]["max_length"]))


def build_network(config: Config, material: Material) -> EnergyNetwork:
    """The classifier with its energy; new weights are drawn by the seed."""
    torch.manual_seed(int(config["seed"]))
    encoder = config["encoder"]
    name = str(encoder["name_or_path"])
    tokenizer, labels = material.tokenizer, material.task.labels
    if name == SMALL:
        small = encoder["small"]
        classifier: Any = build_small_encoder(
            labels,
            len(tokenizer.hf),
            tokenizer.pad_id,
            tokenizer.max_length,
            layers=int(small["layers"]),
            width=int(small["width"]),
            heads=int(small["heads"]),
            dropout=float(small["dropout"]),
        )
    else:
        classifier = load_encoder(name, labels, encoder["options"])
    longest = longest_input(classifier)
    if longest is not None and tokenizer.max_length > longest:
        raise InputError(
            f"task.max_length is {tokenizer.max_length}; {name} takes {longest} tokens at most.",
            f"8 to {longest}",
            f"Set task.max_length={longest}; longer texts are cut and counted.",
        )
    add_lora(classifier, lora_options(config))
    energy = config["energy"]
    head = build_energy(
        str(energy["name"]), classifier.config.hidden_size, float(energy.get("dropout", 0.1))
    )
    return EnergyNetwork(classifier, head)


def lora_options(config: Config) -> LoraOptions:
    """Of `encoder.lora`.

    Raises:
        InputError: for a setting out of its range.
    """
    given = config["encoder"]["lora"]
    options = LoraOptions(
        int(given["rank"]), float(given["alpha"]), float(given["dropout"]), str(given["targets"])
    )
    if options.rank > 0 and config["optim"]["decay_towards"] != "zero":
        raise InputError(
            "encoder.lora.rank is set and optim.decay_towards is 'pretrained'.",
            "one of them: with low-rank additions the pretrained weights do not move",
            "Set optim.decay_towards=zero or encoder.lora.rank=0.",
        )
    return options


def build_loss(settings: Config, label_count_C: Sequence[int]) -> JointLoss:
    """The loss of the `loss` group.

    Args:
        settings: the `loss` group.
        label_count_C: how many training texts have each label.

    Raises:
        InputError: for a setting out of its range.
    """
    label = build_label_loss(settings, len(label_count_C))
    full_at = float(settings["gate"])
    gate = None if full_at == 0 else LabelGate(full_at, label_count_C)
    return JointLoss(float(settings["nce_weight"]), float(settings["ramp"]), label, gate)


@dataclass(frozen=True)
class Plan:
    """How long the training is.

    Attributes:
        steps: optimiser steps of the whole training.
        order: which texts stand in which batch.
    """

    optim: OptimOptions
    steps: int
    order: TrainOrder

    @property
    def batch_size(self) -> int:
        """Texts of a step over all processes."""
        return self.order.size

    def lengths_at(self, epoch: int) -> np.ndarray:
        """Tokens of the text at each position of an epoch, which ends with the last step."""
        return self.order.lengths_at(epoch)[: self.steps * self.order.size]

    def noisy(self, share: float) -> NoisyTexts:
        """Which texts of a batch have noise, for `noise.share`."""
        return NoisyTexts.of_share(share, self.batch_size)

    @property
    def texts(self) -> int:
        """Training texts seen in all steps together."""
        return self.steps * self.batch_size


def plan_training(config: Config, material: Material) -> Plan:
    """Steps, warm-up and optimiser from the settings, which are checked, and the task's recipe."""
    optim, trainer, recipe = config["optim"], config["trainer"], config["task"]["recipe"]
    lengths = tuple(len(t.ids_a) + len(t.ids_b or ()) for t in material.train)
    order = TrainOrder(
        lengths, int(optim["batch_size"]), int(config["seed"]), int(optim["length_window"])
    )
    steps = count_steps(order.steps_per_epoch, trainer["max_steps"], trainer["epochs"])
    options = OptimOptions(
        lr=float(optim["lr"]),
        total_steps=steps,
        warmup_steps=_warmup(optim["warmup_steps"], recipe, steps),
        weight_decay=float(optim["weight_decay"]),
        eps=float(optim["eps"]),
        betas=(float(optim["betas"][0]), float(optim["betas"][1])),
        decay_towards=str(optim["decay_towards"]),
    )
    return Plan(options, steps, order)


def _warmup(given: int | None, recipe: Config, steps: int) -> int:
    """Warm-up steps: as given, else the recipe's, scaled to the length of this training."""
    if given is not None:
        return int(given)
    if recipe.get("warmup_steps") is not None and recipe.get("max_steps") is not None:
        return round(int(recipe["warmup_steps"]) * steps / int(recipe["max_steps"]))
    return round(float(recipe["warmup_fraction"]) * steps)
