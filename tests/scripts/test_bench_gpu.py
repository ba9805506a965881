"""What the GPU's part of the benchmark counts, and what it does where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, RobertaForSequenceClassification

from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.energy.packed import Packed
from calib_ebm.shapes import TokenBatch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.usefixtures("bench_path")
@pytest.mark.parametrize("layers", [1, 3])
def test_operations_are_those_that_torch_counts(layers: int) -> None:
    """Forward, of texts of one length, which are not padded; the head is counted apart."""
    from bench.gpu import Sizes, operations

    hidden, inner, texts, length = 32, 48, 5, 7
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=20,
    )
    network = EnergyNetwork(RobertaForSequenceClassification(config), None).eval()
    ids_BT = torch.randint(5, 50, (texts, length))
    passes, tokens = Packed(network, 1), TokenBatch(ids_BT, torch.ones_like(ids_BT), None)
    # As plain products: torch counts none of what a CPU's own kernel does.
    with (
        FlopCounterMode(display=False) as counted,
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
    ):
        passes(tokens)
    head = 2 * texts * (hidden**2 + 2 * hidden)
    expected = counted.get_total_flops() - head
    length_B = torch.full((texts,), length)
    assert operations(length_B, Sizes(hidden, inner, layers)) == 3 * expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_measures_nothing() -> None:
    command = [sys.executable, str(SCRIPTS / "bench.py"), "--part", "gpu", "--short"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gpu: there is none here" in done.stderr
