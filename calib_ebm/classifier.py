"""What a run leaves behind, ready for use: calibrated probabilities and an energy per text.

The folder `model/` of a run is what transformers writes, so that its Auto classes load it too;
beside it lie `calib_ebm.json` (the kind of energy, the temperature, the length) and, for a scalar
energy, its head's weights. Nothing in the folder is executed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from calib_ebm.energy.encoder import load_encoder
from calib_ebm.energy.heads import ENERGIES, Energy, build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.shapes import Encoded, Example, TokenBatch
from calib_ebm.tokens.collate import pad_batch
from calib_ebm.tokens.order import OnceBatches
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples, load_tokenizer

FACTS = "calib_ebm.json"
HEAD = "energy_head.safetensors"


class ScoredRows(NamedTuple):
    """Scores of some rows of a set, in the order in which they were computed."""

    rows: Tensor
    logits_BC: Tensor
    energy_B: Tensor | None


@dataclass
class EnergyClassifier:
    """A fine-tuned classifier with its energy and its calibration.

    Attributes:
        network: classifier and energy, in evaluation mode.
        tokenizer: of the encoder.
        labels: class names in index order.
        energy_name: a key of `ENERGIES`, or "none".
        temperature: by which logits are divided before the softmax.
    """

    network: EnergyNetwork
    tokenizer: TextTokenizer
    labels: tuple[str, ...]
    energy_name: str
    temperature: float = 1.0
    batch_size: int = 64

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> EnergyClassifier:
        """Load a run's `model/` folder.

        Raises:
            InputError: when the folder is not one, or was not written by this package.
        """
        folder = Path(folder)
        if not (folder / FACTS).is_file():
            raise InputError(
                f"{folder} is no model folder of calib_ebm: it has no {FACTS}.",
                "the folder `model` within a run folder",
                "Give that folder; for other classifiers use transformers' Auto classes.",
            )
        facts = _read_facts(folder / FACTS)
        classifier = load_encoder(str(folder), facts.labels, {}, finished=True)
        energy = _load_energy(folder, facts.energy, classifier)
        network = EnergyNetwork(classifier, energy).eval()
        tokenizer = TextTokenizer(load_tokenizer(str(folder)), facts.max_length)
        return cls(network, tokenizer, facts.labels, facts.energy, facts.temperature)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `from_pretrained` reads; transformers' Auto classes read it too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        classifier: Any = self.network.classifier
        classifier.save_pretrained(folder)
        # So that who loads the folder with transformers alone and asks for truncation is right.
        hf: Any = self.tokenizer.hf
        hf.model_max_length = min(hf.model_max_length, self.tokenizer.max_length)
        hf.save_pretrained(folder)
        if self.network.energy is not None and any(True for _ in self.network.energy.parameters()):
            state = {k: v.contiguous().cpu() for k, v in self.network.energy.state_dict().items()}
            save_file(state, folder / HEAD)
        self.write_facts(folder)

    def write_facts(self, folder: Path) -> None:
        """Write the small file beside the model: energy, temperature, labels, length."""
        facts = {
            "energy": self.energy_name,
            "temperature": self.temperature,
            "labels": list(self.labels),
            "max_length": self.tokenizer.max_length,
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def predict_proba(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Calibrated probabilities of N texts, N by C, in the order of `labels`."""
        logits_NC, _ = self.score(texts, text_pairs)
        return torch.softmax(logits_NC.double() / self.temperature, dim=-1).numpy()

    def energy(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Energies of N texts in nats; the lower, the more a text looks like the training data.

        Raises:
            InputError: when the run trained no energy.
        """
        _, energy_N = self.score(texts, text_pairs)
        if energy_N is None:
            raise InputError(
                "This model was fine-tuned without an energy (energy=none).",
                "a model trained with " + ", ".join(ENERGIES),
                "Train one, e.g. energy=sharp_hidden.",
            )
        return energy_N.double().numpy()

    def score(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (N by C) before calibration, and energies (N, or None), of texts or of one.

        Raises:
            InputError: when there are not as many second texts as texts.
        """
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(text_pairs, str):
            text_pairs = [text_pairs]
        pairs: Sequence[str | None] = [None] * len(texts) if text_pairs is None else text_pairs
        if len(pairs) != len(texts):
            raise InputError(
                f"{len(texts)} texts and {len(pairs)} second texts were given.",
                "as many second texts as texts",
                "Give one for each.",
            )
        both = zip(texts, pairs, strict=True)
        examples = [Example(str(row), text, pair, -1) for row, (text, pair) in enumerate(both)]
        encoded, _ = encode_examples(self.tokenizer, examples)
        scored = self.score_encoded(encoded)
        order = scored.rows.argsort()
        energy_N = None if scored.energy_B is None else scored.energy_B[order]
        return scored.logits_BC[order], energy_N

    @torch.inference_mode()
    def score_encoded(
        self, encoded: Sequence[Encoded], rank: int = 0, world: int = 1
    ) -> ScoredRows:
        """Score this rank's share of encoded texts, in batches of similar length."""
        self.network.eval()
        device = next(self.network.parameters()).device
        lengths = [len(t.ids_a) + len(t.ids_b or ()) for t in encoded]
        rows: list[int] = []
        logits = [torch.zeros(0, len(self.labels))]
        energies = [torch.zeros(0)]
        for batch in OnceBatches(lengths, self.batch_size, rank, world):
            tokens = pad_batch(self.tokenizer, [encoded[row] for row in batch])
            scores = self.network(_to_device(tokens, device))
            rows += batch
            logits.append(scores.logits_BC.float().cpu())
            if scores.energy_B is not None:
                energies.append(scores.energy_B.float().cpu())
        energy_B = None if self.network.energy is None else torch.cat(energies)
        return ScoredRows(torch.tensor(rows, dtype=torch.long), torch.cat(logits), energy_B)


def _to_device(tokens: TokenBatch, device: torch.device) -> TokenBatch:
    types_BT = tokens.token_type_ids_BT
    return TokenBatch(
        tokens.input_ids_BT.to(device),
        tokens.attention_mask_BT.to(device),
        None if types_BT is None else types_BT.to(device),
    )


class _Facts(NamedTuple):
    energy: str
    temperature: float
    labels: tuple[str, ...]
    max_length: int


def _read_facts(path: Path) -> _Facts:
    """The small file beside the model.

    Raises:
        InputError: when it is broken.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        facts = _Facts(
            str(plain["energy"]),
            float(plain["temperature"]),
            tuple(str(label) for label in plain["labels"]),
            int(plain["max_length"]),
        )
        if not 0 < facts.temperature < float("inf"):
            raise ValueError(f"its temperature is {facts.temperature}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}).",
            "the file as this package writes it: energy, temperature, labels, max_length",
            "Copy the model folder again, or train again.",
        ) from error
    return facts


def _load_energy(folder: Path, name: str, classifier: Any) -> Energy | None:
    energy = build_energy(name, classifier.config.hidden_size)
    if energy is not None and any(True for _ in energy.parameters()):
        if not (folder / HEAD).is_file():
            raise InputError(
                f"{folder} holds a classifier with energy={name}, but no {HEAD}.",
                "a model folder with all its files",
                "Copy the whole folder.",
            )
        try:
            energy.load_state_dict(load_file(folder / HEAD))
        # Half a file, or another model's head: errors of every kind, all the same to the person.
        except Exception as error:
            raise InputError(
                f"{folder / HEAD} cannot be read ({(str(error).splitlines() or [''])[0]}).",
                "the head as it was saved with this model",
                "Copy the whole folder again.",
            ) from error
    return energy
