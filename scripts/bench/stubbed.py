"""`calib_ebm.predict` with everything but the encoder: what scoring costs beside the model.

    python scripts/bench/stubbed.py make FOLDER ROWS       # a model folder and FOLDER/new.csv
    python scripts/bench/stubbed.py predict SETTING=VALUE ...

The second prints, last, seconds and peak memory of the process as JSON. The encoder is one that
adds up the tokens' numbers; reading, tokenizing, sorting, writing and joining are the real ones.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WORDS = (
    *("the", "a", "film", "story", "dog", "cat", "runs", "sees", "finds", "tells", "good", "bad"),
    *("dull", "fine", "warm", "cold", "never", "always", "of", "in", "under", "over", "with"),
    *("without", "and", "but", "while", "because", "slowly", "quickly", "nothing", "everything"),
)
LABELS = ("bad", "good")


def make(folder: Path, rows: int) -> None:
    """A model folder, and so many rows of random words, 1 to 40 each, half of them short."""
    import torch

    from calib_ebm.classifier import EnergyClassifier
    from calib_ebm.energy.encoder import build_small_encoder
    from calib_ebm.energy.heads import build_energy
    from calib_ebm.energy.network import EnergyNetwork
    from calib_ebm.tokens.tokenizer import TextTokenizer, train_tokenizer

    tokenizer = TextTokenizer(train_tokenizer([" ".join(WORDS)] * 4, 400), 64)
    torch.manual_seed(0)
    size = len(tokenizer.hf)
    model = build_small_encoder(LABELS, size, 1, 64, layers=1, width=8, heads=1, dropout=0.0)
    network = EnergyNetwork(model, build_energy("hidden", 8))
    EnergyClassifier(network, tokenizer, LABELS, "hidden").save_pretrained(folder / "model")
    draw = random.Random(0)  # noqa: S311  (of words, not of secrets)
    with (folder / "new.csv").open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for row in range(rows):
            longest = 8 if row % 2 else 40
            words = draw.choices(WORDS, k=draw.randint(1, longest))
            file.write(f"{row},{' '.join(words)}\n")


def stub() -> Any:
    """A classifier whose logits are a function of the sum of a text's token ids."""
    import torch
    from torch import Tensor, nn

    class Stub(nn.Module):
        config = SimpleNamespace(_attn_implementation="none", hidden_size=1, num_labels=2)

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        @property
        def base_model(self) -> nn.Module:
            return self

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False
        ) -> SimpleNamespace:
            sum_B = (input_ids * attention_mask).sum(dim=1).float() * self.scale
            logits_BC = torch.stack([sum_B.sin(), sum_B.cos()], dim=1)
            return SimpleNamespace(logits=logits_BC, hidden_states=None)

    return Stub()


def predict() -> None:
    """The command, its encoder exchanged."""
    import calib_ebm.learn.models as models
    from calib_ebm.classifier import EnergyClassifier
    from calib_ebm.command import run_command
    from calib_ebm.energy.network import EnergyNetwork
    from calib_ebm.learn.record import peak_memory_mb
    from calib_ebm.predict import LISTS, SETTINGS
    from calib_ebm.predict import predict as score
    from calib_ebm.usage import Usage

    class Stubbed(EnergyClassifier):
        @classmethod
        def from_pretrained(cls, folder: str | Path) -> EnergyClassifier:
            loaded = EnergyClassifier.from_pretrained(folder)
            loaded.network = EnergyNetwork(stub(), loaded.network.energy).eval()
            return loaded

    models.EnergyClassifier = Stubbed  # type: ignore[misc]
    start = time.perf_counter()
    run_command(Usage("predict", "predict", "", SETTINGS, lists=LISTS), score)
    # Of this program's own memory: getrusage begins with what the process was when it was forked.
    peak = peak_memory_mb()
    cpu = time.process_time()
    print(json.dumps({"seconds": time.perf_counter() - start, "cpu": cpu, "peak_mb": peak}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        del sys.argv[1]
        predict()
