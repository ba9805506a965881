"""What a run leaves behind, ready for use: calibrated probabilities and an energy per text.

The folder `model/` of a run is what transformers writes, so that its Auto classes load it too;
beside it lie `calib_ebm.json` (the kind of energy, the calibrator, the length) and, for a scalar
energy, its head's weights. A calibrator that is affine in the logits is folded into the
classifier's last layer, so that transformers alone gives calibrated probabilities; the layer as it
was trained is kept beside, for energies and further calibrators are functions of its logits. In
memory the network is always the uncalibrated one. Nothing in the folder is executed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.temperature import NoCalibration
from calib_ebm.energy.encoder import load_encoder
from calib_ebm.energy.fold import Head, find_last_layer, folded_head, with_head
from calib_ebm.energy.heads import ENERGIES
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.model_folder import (
    HEAD,
    UNCALIBRATED,
    as_tensors,
    load_energy,
    read_facts,
    replace_whole,
    unfold,
)
from calib_ebm.names import FACTS
from calib_ebm.shapes import Encoded, Example, TokenBatch
from calib_ebm.tokens.collate import pad_batch
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples, load_tokenizer
from calib_ebm.windows import WINDOW, ScoredRows, WindowScorer, to_device


class ScoredText(NamedTuple):
    """What is said of one text of a stream."""

    label: str
    """The class of the largest probability."""
    confidence: float
    probs_C: NDArray[np.float64]
    """Calibrated, in the order of the classes."""
    energy: float | None
    """In nats; None where the run trained no energy."""


@dataclass
class EnergyClassifier:
    """A fine-tuned classifier with its energy and its calibration.

    Attributes:
        network: classifier and energy, in evaluation mode.
        tokenizer: of the encoder.
        labels: class names in index order.
        energy_name: a key of `ENERGIES`, or "none".
        calibrator: makes probabilities of logits.
        tokens_per_pass: of the encoder, at most; None: as the device likes it.
    """

    network: EnergyNetwork
    tokenizer: TextTokenizer
    labels: tuple[str, ...]
    energy_name: str
    calibrator: Calibrator = field(default_factory=NoCalibration)
    tokens_per_pass: int | None = None
    _made: WindowScorer | None = field(default=None, init=False, repr=False, compare=False)

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
        facts = read_facts(folder / FACTS)
        classifier = load_encoder(str(folder), facts.labels, {}, finished=True)
        if facts.folded_into is not None:
            unfold(classifier, facts, folder)
        energy = load_energy(folder, facts.energy, classifier)
        network = EnergyNetwork(classifier, energy).eval()
        tokenizer = TextTokenizer(load_tokenizer(str(folder)), facts.max_length)
        return cls(network, tokenizer, facts.labels, facts.energy, facts.calibrator)

    def to(self, device: str | torch.device) -> EnergyClassifier:
        """Compute on this device from now on; returns itself."""
        self.network.to(device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `from_pretrained` reads; transformers' Auto classes read it too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # So that who loads the folder with transformers alone and asks for truncation is right.
        hf: Any = self.tokenizer.hf
        hf.model_max_length = min(hf.model_max_length, self.tokenizer.max_length)
        hf.save_pretrained(folder)
        if self.network.energy is not None and any(True for _ in self.network.energy.parameters()):
            state = {k: v.contiguous().cpu() for k, v in self.network.energy.state_dict().items()}
            save_file(state, folder / HEAD)
        self._write_weights(folder)
        self.save_calibrator(folder)

    def save_calibrator(self, folder: Path) -> bool:
        """Put the calibrator into a folder that `save_pretrained` wrote, in place of another.

        May be stopped anywhere and done again: what was trained is never lost, and as the network
        in memory is the uncalibrated one, nothing is folded twice.

        Returns:
            whether it was folded into the classifier, or there is nothing to fold.
        """
        if (folder / FACTS).is_file() and read_facts(folder / FACTS).folded_into is not None:
            # From here on both the old and the new facts fit the weights.
            self._write_weights(folder)
        name, head = self._folded()
        if head is not None and name is not None:
            layer = self._layer(name)
            own = Head.of(layer)._asdict()
            replace_whole(folder / UNCALIBRATED, lambda part: save_file(as_tensors(own), part))
        self._write_facts(folder, name if head is not None else None)
        if head is None:
            (folder / UNCALIBRATED).unlink(missing_ok=True)
            return self.calibrator.name == "none"
        assert name is not None
        with with_head(self._layer(name), head):
            self._write_weights(folder)
        return True

    def _folded(self) -> tuple[str | None, Head | None]:
        """The last layer's name, and its values with the calibrator folded in; None: cannot be."""
        if self.calibrator.name == "none":
            return None, None
        affine = self.calibrator.affine(len(self.labels))
        if affine is None:
            return None, None
        self.network.eval()
        tokens = self._probe()
        with torch.inference_mode():

            def logits() -> Tensor:
                return self.network(tokens).logits_BC

            name = find_last_layer(self.network.classifier, logits, len(self.labels))
            if name is None:
                return None, None
            return name, folded_head(self._layer(name), affine.weight_CC, affine.bias_C, logits)

    def _layer(self, name: str) -> nn.Linear:
        layer = self.network.classifier.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return layer

    def _probe(self) -> TokenBatch:
        """A few short texts, on which a folded layer is tried out."""
        texts = ["a", "the end of it .", " ".join(self.labels), *self.labels][:8]
        examples = [Example(str(row), text, None, -1) for row, text in enumerate(texts)]
        encoded, _ = encode_examples(self.tokenizer, examples)
        device = next(self.network.parameters()).device
        return to_device(pad_batch(self.tokenizer, encoded), device)

    def _write_weights(self, folder: Path) -> None:
        """The classifier's weights as they are now, each file put in place whole."""
        classifier: Any = self.network.classifier
        part = folder / "weights.part"
        shutil.rmtree(part, ignore_errors=True)
        classifier.save_pretrained(part)
        for file in sorted(part.iterdir()):  # config.json before model.safetensors
            file.replace(folder / file.name)
        shutil.rmtree(part)

    def _write_facts(self, folder: Path, folded_into: str | None) -> None:
        """The small file beside the model: energy, calibrator, labels, length."""
        facts = {
            "energy": self.energy_name,
            "labels": list(self.labels),
            "max_length": self.tokenizer.max_length,
            "folded_into": folded_into,
            "calibrator": self.calibrator.state(),
        }
        text = json.dumps(facts, indent=2) + "\n"
        replace_whole(folder / FACTS, lambda part: part.write_text(text, encoding="utf-8"))

    def predict_proba(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Calibrated probabilities of N texts, N by C, in the order of `labels`."""
        logits_NC, _ = self.score(texts, text_pairs)
        if len(logits_NC) == 0:
            return logits_NC.double().numpy()
        return self.calibrator.probabilities(logits_NC).numpy()

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

    def stream(
        self, texts: Iterable[str | tuple[str, str]], window: int = WINDOW
    ) -> Iterator[ScoredText]:
        """Score texts, or pairs, one after the other in their order, however many there are.

        No more than a window of them is held, so they may come from a generator without end.

        Args:
            texts: the texts, or pairs of texts.
            window: how many are read before they are sorted by length and scored.
        """
        self.network.eval()
        scorer = self._scorer()
        coming = iter(texts)
        while found := list(islice(coming, window)):
            pairs = ((text, None) if isinstance(text, str) else text for text in found)
            examples = [Example("", text, pair, -1) for text, pair in pairs]
            logits_BC, energy_B, _ = scorer.score(examples)
            probs_BC = self.calibrator.probabilities(logits_BC).numpy()
            for row, probs_C in enumerate(probs_BC):
                best = int(probs_C.argmax())
                energy = None if energy_B is None else float(energy_B[row])
                yield ScoredText(self.labels[best], float(probs_C[best]), probs_C, energy)

    def score_encoded(
        self,
        encoded: Sequence[Encoded],
        rank: int = 0,
        world: int = 1,
        *,
        with_dropout: bool = False,
        seed: int = 0,
        tell: Callable[[int], None] | None = None,
    ) -> ScoredRows:
        """Score this rank's share of encoded texts; see `WindowScorer.score_encoded`."""
        self.network.train(with_dropout)
        further: dict[str, Any] = {} if tell is None else {"tell": tell}
        try:
            return self._scorer().score_encoded(encoded, rank, world, seed=seed, **further)
        finally:
            self.network.eval()

    def _scorer(self) -> WindowScorer:
        """Made once: it tries out how the encoder can be asked."""
        made = self._made
        if made is None or made.network is not self.network or made.tokenizer is not self.tokenizer:
            made = self._made = WindowScorer(self.network, self.tokenizer)
        made.asked = self.tokens_per_pass
        return made
