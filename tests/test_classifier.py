"""What a run leaves behind: saved and loaded by value, by us and by transformers alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import calib_ebm
from calib_ebm.calibration.calibrator import Calibrator
from calib_ebm.calibration.calibrators import calibrator_from_state
from calib_ebm.calibration.temperature import NoCalibration
from calib_ebm.classifier import EnergyClassifier
from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.heads import ENERGIES, build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.model_folder import HEAD, UNCALIBRATED
from calib_ebm.names import FACTS
from calib_ebm.shapes import Encoded, Example
from calib_ebm.tokens.tokenizer import TextTokenizer, encode_examples, train_tokenizer

LABELS = ("bad", "fine", "good")
TEXTS = ["a cat sat on the mat", "it", "the film was good and it was good", "zebra", "a cat"]
PAIRS = ["the mat", "it was bad", "a", "film film film", "cat and cat"]


def fitted(temperature: float = 1.7) -> Calibrator:
    state = {"name": "temperature", "temperature": temperature, "lower": 0.01, "upper": 100.0}
    return calibrator_from_state(state)


def classifier(energy: str = "sharp_hidden", max_length: int = 16) -> EnergyClassifier:
    tokenizer = TextTokenizer(train_tokenizer([*TEXTS, *PAIRS] * 2, 280), max_length)
    torch.manual_seed(0)
    model = build_small_encoder(
        LABELS, len(tokenizer.hf), 1, max_length, layers=1, width=16, heads=2, dropout=0.1
    )
    with torch.no_grad():  # so that texts differ in their logits
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 8
    network = EnergyNetwork(model, build_energy(energy, 16))
    return EnergyClassifier(network, tokenizer, LABELS, energy, fitted(), tokens_per_pass=12)


@pytest.mark.parametrize("energy", ["none", *ENERGIES])
def test_saved_and_loaded_it_says_the_same(energy: str, tmp_path: Path) -> None:
    ours = classifier(energy)
    ours.save_pretrained(tmp_path)
    again = EnergyClassifier.from_pretrained(tmp_path)
    again.tokens_per_pass = ours.tokens_per_pass
    assert (again.labels, again.energy_name, again.calibrator.temperature) == (LABELS, energy, 1.7)
    assert again.tokenizer.digest == ours.tokenizer.digest
    assert again.tokenizer.max_length == 16
    for pairs in (None, PAIRS):
        ours_logits, ours_energy = ours.score(TEXTS, pairs)
        their_logits, their_energy = again.score(TEXTS, pairs)
        torch.testing.assert_close(their_logits, ours_logits, rtol=1e-6, atol=1e-6)
        assert (ours_energy is None) == (energy == "none")
        if ours_energy is not None:
            torch.testing.assert_close(their_energy, ours_energy, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            again.predict_proba(TEXTS, pairs), ours.predict_proba(TEXTS, pairs), rtol=1e-6
        )


def test_transformers_alone_loads_it(tmp_path: Path) -> None:
    ours = classifier("scalar")
    ours.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for pairs in (None, PAIRS):
        inputs = tokenizer(TEXTS, pairs, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            theirs_BC = model(**inputs).logits
        # The temperature is in its weights: what it gives is calibrated, with nothing of ours.
        wanted_BC = ours.score(TEXTS, pairs)[0] / 1.7
        torch.testing.assert_close(theirs_BC, wanted_BC, rtol=1e-5, atol=1e-5)
    assert model.config.id2label == dict(enumerate(LABELS))


def test_a_pipeline_cuts_where_we_do(tmp_path: Path) -> None:
    """Who asks transformers for truncation, and for nothing more, gets the model's own length."""
    ours = classifier()
    ours.save_pretrained(tmp_path)
    long = "a cat sat on the mat and " * 9
    assert len(ours.tokenizer.encode_pieces(long)) > 16
    told = pipeline("text-classification", model=str(tmp_path), device="cpu")(
        long, truncation=True, top_k=None
    )
    theirs = [next(t["score"] for t in told if t["label"] == label) for label in LABELS]
    assert theirs == pytest.approx(ours.predict_proba(long)[0].tolist(), abs=1e-5)


@pytest.mark.parametrize(("energy", "head"), [("scalar", True), ("hidden", False)])
def test_the_folder_holds_safetensors_and_nothing_that_is_executed(
    energy: str, head: bool, tmp_path: Path
) -> None:
    classifier(energy).save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.suffix for path in map(Path, files)} == {".safetensors", ".json"}
    assert {"model.safetensors", "config.json", "tokenizer.json", FACTS, UNCALIBRATED} <= files
    assert (HEAD in files) == head
    facts = json.loads((tmp_path / FACTS).read_text())
    assert facts == {
        "energy": energy,
        "labels": list(LABELS),
        "max_length": 16,
        "folded_into": "classifier.out_proj",
        "calibrator": fitted().state(),
    }


def test_probabilities_are_the_softmax_at_the_temperature() -> None:
    ours = classifier()
    probs_NC = ours.predict_proba(TEXTS)
    assert probs_NC.dtype == np.float64
    assert probs_NC.shape == (5, 3)
    np.testing.assert_allclose(probs_NC.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    expected = np.exp(ours.score(TEXTS)[0].double().numpy() / 1.7)
    np.testing.assert_allclose(probs_NC, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)
    ours.calibrator = NoCalibration()  # the control: it is not left out
    assert np.abs(ours.predict_proba(TEXTS) - probs_NC).max() > 1e-3


def test_texts_keep_their_order_whatever_their_length() -> None:
    """They are scored in batches of similar length, and given back as they came."""
    ours = classifier("scalar")
    together_NC, energy_N = ours.score(TEXTS, PAIRS)
    encoded, _ = encode_examples(
        ours.tokenizer, [Example("", t, p, -1) for t, p in zip(TEXTS, PAIRS, strict=True)]
    )
    assert ours.score_encoded(encoded).rows.tolist() != [0, 1, 2, 3, 4]  # or there is no order
    assert energy_N is not None
    for row, (text, pair) in enumerate(zip(TEXTS, PAIRS, strict=True)):
        alone_1C, alone_1 = ours.score([text], [pair])
        torch.testing.assert_close(together_NC[row], alone_1C[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(energy_N[row], alone_1[0], rtol=1e-4, atol=1e-5)
    assert (together_NC[0] - together_NC[1]).abs().max() > 1e-3


def encoded_texts(ours: EnergyClassifier) -> list[Encoded]:
    return encode_examples(ours.tokenizer, [Example("", text, None, -1) for text in TEXTS])[0]


@pytest.mark.parametrize("energy", ["hidden", "self_sampled"])
def test_ranks_share_the_texts_and_nobody_can_tell(energy: str) -> None:
    ours = classifier(energy)
    encoded = encoded_texts(ours)
    whole = ours.score_encoded(encoded)
    for world in (2, 7):
        told: list[list[int]] = [[] for _ in range(world)]
        parts = [
            ours.score_encoded(encoded, rank, world, tell=told[rank].append)
            for rank in range(world)
        ]
        rows = torch.cat([part.rows for part in parts])
        assert sorted(rows.tolist()) == [0, 1, 2, 3, 4]
        logits_NC = torch.cat([part.logits_BC for part in parts])[rows.argsort()]
        assert torch.equal(logits_NC, whole.logits_BC[whole.rows.argsort()])
        # With an energy, also of those without texts.
        energy_N = torch.cat([part.energy_B for part in parts if part.energy_B is not None])
        assert whole.energy_B is not None
        assert torch.equal(energy_N[rows.argsort()], whole.energy_B[whole.rows.argsort()])
        assert sum(told[0]) == 5, "the first one speaks for all"
    assert len(ours.score_encoded(encoded, seed=-1).rows) == 5  # any seed will do
    other = ours.score_encoded(encoded, seed=1)
    assert other.energy_B is not None
    assert torch.equal(other.energy_B, whole.energy_B) == (energy == "hidden")


def test_a_model_that_is_changed_is_asked_as_it_is_now() -> None:
    """How to ask it is found out once, and must not outlive the network it was found for."""
    ours, other = classifier("scalar"), classifier("none")
    before, _ = ours.score(TEXTS)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(1.5)
    ours.network = other.network
    after, energy_N = ours.score(TEXTS)
    assert energy_N is None
    torch.testing.assert_close(after, other.score(TEXTS)[0])
    assert not torch.allclose(after, before, atol=1e-3)
    whole = ours.score_encoded(encoded_texts(ours))
    ours.tokens_per_pass = 1
    told: list[int] = []
    ours.score_encoded(encoded_texts(ours), tell=told.append)
    assert told == [1] * 5 and len(whole.rows) == 5


def test_it_computes_where_it_is_put() -> None:
    ours = classifier("scalar")
    assert ours.to("cpu") is ours
    before, _ = ours.score(TEXTS)
    ours.to("meta")  # a device that has shapes and no numbers
    assert ours._scorer().device.type == "meta"
    assert ours._scorer().tokens == 12 and before.shape == (5, 3)
    ours.tokens_per_pass = None
    assert ours._scorer().tokens > 10_000, "as no CPU likes it"


def test_a_pass_that_is_too_large_for_the_device_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = classifier()
    ours.score(TEXTS)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    state = torch.random.get_rng_state()
    monkeypatch.setattr(ours._made, "passes", full)
    with pytest.raises(InputError, match="Set tokens_per_pass=3"):
        ours.score(TEXTS)
    assert torch.equal(torch.random.get_rng_state(), state)

    def wrong(*_: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(ours._made, "passes", wrong)
    with pytest.raises(RuntimeError, match="of ours"):
        ours.score(TEXTS)


def test_scoring_takes_no_gradient_and_no_dropout() -> None:
    ours = classifier("scalar")
    ours.network.train()
    first, second = ours.score(TEXTS), ours.score(TEXTS)
    assert torch.equal(first[0], second[0])
    assert first[1] is not None
    assert torch.equal(first[1], second[1])
    assert not first[0].requires_grad


def test_energies_are_those_of_the_logits() -> None:
    ours = classifier("sharp_hidden")
    energy_N = ours.energy(TEXTS)
    assert energy_N.dtype == np.float64
    np.testing.assert_array_equal(energy_N, -ours.score(TEXTS)[0].max(dim=1).values.numpy())


def test_a_single_text_is_a_list_of_one() -> None:
    ours = classifier()
    np.testing.assert_array_equal(ours.predict_proba("a cat"), ours.predict_proba(["a cat"]))
    np.testing.assert_array_equal(
        ours.predict_proba("a cat", "the mat"), ours.predict_proba(["a cat"], ["the mat"])
    )
    assert ours.energy("a cat").shape == (1,)


@pytest.mark.parametrize("energy", ["hidden", "scalar"])
def test_no_texts_give_no_rows(energy: str) -> None:
    ours = classifier(energy)
    assert ours.predict_proba([]).shape == (0, 3)
    assert ours.energy([]).shape == (0,)


def test_without_an_energy_there_is_none_to_give() -> None:
    with pytest.raises(InputError, match="without an energy") as refused:
        classifier("none").energy(TEXTS)
    assert "sharp_hidden" in refused.value.allowed


@pytest.mark.parametrize("pairs", [["the mat"], "the mat", "abcde", []])
def test_second_texts_must_be_as_many(pairs: list[str] | str) -> None:
    with pytest.raises(InputError, match="5 texts and"):
        classifier().score(TEXTS, pairs)


def test_a_long_text_is_cut() -> None:
    ours = classifier()
    long = "a cat sat on the mat and " * 9
    assert ours.predict_proba(long).shape == (1, 3)
    np.testing.assert_array_equal(ours.predict_proba(long), ours.predict_proba(f"{long} it was"))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model folder") as refused:
        EnergyClassifier.from_pretrained(tmp_path / "nowhere")
    assert "run folder" in refused.value.allowed


def test_a_folder_without_the_head_is_refused(tmp_path: Path) -> None:
    classifier("scalar").save_pretrained(tmp_path)
    (tmp_path / HEAD).unlink()
    with pytest.raises(InputError, match=f"no {HEAD}"):
        EnergyClassifier.from_pretrained(tmp_path)


def test_it_is_what_the_package_offers() -> None:
    assert calib_ebm.EnergyClassifier is EnergyClassifier


@pytest.mark.parametrize("damage", ["labels", "weights"])
def test_a_model_whose_labels_and_weights_disagree_is_refused(tmp_path: Path, damage: str) -> None:
    """Once it got a head of random weights, and nothing was said."""
    classifier().save_pretrained(tmp_path)
    if damage == "labels":
        facts = json.loads((tmp_path / FACTS).read_text())
        (tmp_path / FACTS).write_text(json.dumps(facts | {"labels": ["bad", "good"]}))
    else:
        weights = load_file(tmp_path / "model.safetensors")
        del weights["classifier.out_proj.weight"]
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"classifier\.out_proj\.weight.* for [23] classes"):
        EnergyClassifier.from_pretrained(tmp_path)
