"""The expectations for many GPUs: their exact parts against what they claim to count."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import RobertaConfig, RobertaForSequenceClassification

from calib_ebm.noise.bank import NoiseBank, write_bank
from calib_ebm.noise.sampler import Counts, Drawn
from calib_ebm.shapes import Encoded

SCRIPTS = Path(__file__).parents[2] / "scripts"
TOKENS, TEXTS = 40, 2000


@pytest.fixture
def scale() -> Iterator[object]:
    """The script as a module."""
    sys.path.insert(0, str(SCRIPTS))
    import scale

    yield scale
    sys.path.remove(str(SCRIPTS))


def test_a_noise_text_takes_the_bytes_that_are_said(scale: object, tmp_path: Path) -> None:
    """Against a bank of pairs on the disk; Arrow's own frame is the rest."""
    text = Encoded(list(range(25)), list(range(15)), 0)

    def draw(numbers: range) -> tuple[list[Drawn], Counts]:
        return [Drawn(text, n) for n in numbers], Counts()

    write_bank(tmp_path / "bank", {"count": TEXTS}, TEXTS, draw, {}, print)
    assert len(NoiseBank.open(tmp_path / "bank", {"count": TEXTS})) == TEXTS
    on_disk = sum(path.stat().st_size for path in (tmp_path / "bank").glob("*.arrow"))
    said = scale.bank_bytes(TEXTS, 1, 1.0, 1, TOKENS)
    assert math.isclose(on_disk, said, rel_tol=0.03)
    assert not math.isclose(on_disk, scale.bank_bytes(TEXTS, 1, 1.0, 1, TOKENS + 5), rel_tol=0.03)


def test_weights_are_those_of_the_model(scale: object) -> None:
    model = scale.model_of("roberta-base", TOKENS)
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=3
    )
    whole = sum(p.numel() for p in RobertaForSequenceClassification(config).parameters())
    assert model.weights == whole


def test_more_gpus_are_never_faster_than_ideal_and_links_bound_them(scale: object) -> None:
    model = scale.model_of("roberta-base", TOKENS)
    cluster = scale.Cluster(1e6, 450e9, 50e9, 8)
    load = scale.Load(512, 0.25, 8, TOKENS)
    assert load.tokens_of_step == 512 * 3 * TOKENS
    for gpus in (1, 2, 8, 16, 512):
        got = scale.expect(model, load, cluster, gpus)
        assert 0 < got.efficiency[0] <= got.efficiency[1] <= 1
        assert got.slowest <= got.fastest <= gpus * cluster.tokens_per_second
    alone = scale.expect(model, load, cluster, 1)
    assert alone.exchanging == 0 and alone.efficiency == (1, 1)
    narrow = scale.expect(model, load, cluster._replace(between=5e9), 64)
    wide = scale.expect(model, load, cluster, 64)
    assert math.isclose(narrow.exchanging, 10 * wide.exchanging)


def test_what_the_host_needs_for_a_step_is_the_least_that_it_takes(scale: object) -> None:
    """Then a batch that is dealt out gains nothing, and one that grows with the GPUs all."""
    model = scale.model_of("roberta-base", TOKENS)
    cluster = scale.Cluster(1e6, 450e9, 450e9, 8, host=0.045)
    one = scale.Load(32, 0.25, 8, TOKENS)
    assert scale.expect(model, one, cluster, 1, one).computing == 0.045
    dealt = scale.expect(model, one, cluster, 8, one)
    assert dealt.computing == 0.045 and dealt.efficiency[1] == pytest.approx(1 / 8)
    grown = scale.expect(model, one._replace(batch=256), cluster, 8, one)
    assert grown.computing == 0.045 and grown.efficiency[1] == pytest.approx(1)
    large = one._replace(batch=4096)
    assert scale.expect(model, large, cluster, 1, one).computing == pytest.approx(0.49152)


def test_the_page_quotes_what_the_script_says() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "scale.py")], capture_output=True, text=True, check=True
    )
    page = (SCRIPTS.parent / "docs" / "many_gpus.md").read_text(encoding="utf-8")
    assert done.stdout.strip() in page
