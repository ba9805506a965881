"""A calibrator as part of the saved model: folded where it can be, never twice, always undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import calib_ebm.classifier as module
from calib_ebm.calibration.calibrators import CALIBRATORS, build_calibrator
from calib_ebm.classifier import EnergyClassifier
from calib_ebm.energy.encoder import build_small_encoder
from calib_ebm.energy.heads import build_energy
from calib_ebm.energy.network import EnergyNetwork
from calib_ebm.errors import InputError
from calib_ebm.model_folder import UNCALIBRATED
from calib_ebm.names import FACTS
from calib_ebm.tokens.tokenizer import TextTokenizer, train_tokenizer

LABELS = ("bad", "fine", "good")
TEXTS = ["a cat sat on the mat", "it", "the film was good and it was good", "zebra", "a cat"]
FOLDED = ("temperature", "temperature_grid", "vector", "matrix")
BESIDE = sorted({*CALIBRATORS} - {*FOLDED, "none"})


def classifier(energy: str = "sharp_hidden") -> EnergyClassifier:
    tokenizer = TextTokenizer(train_tokenizer(TEXTS * 2, 280), 16)
    torch.manual_seed(0)
    model = build_small_encoder(
        LABELS, len(tokenizer.hf), 1, 16, layers=1, width=16, heads=2, dropout=0.1
    )
    with torch.no_grad():  # so that texts differ in their logits
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 8
    network = EnergyNetwork(model, build_energy(energy, 16))
    return EnergyClassifier(network, tokenizer, LABELS, energy)


def fitted(name: str, seed: int = 0) -> Any:
    """A calibrator that changes much: biased slopes for each class."""
    generator = torch.Generator().manual_seed(seed)
    true = 2 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    logits = true * torch.tensor([1.5, 2.0, 3.0]) + torch.tensor([1.0, 0.0, -0.5])
    return build_calibrator({"name": name}).fit(logits, labels)


def by_transformers(folder: Path) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        probs: np.ndarray = model(**inputs).logits.double().softmax(-1).numpy()
    return probs


@pytest.mark.parametrize("energy", ["none", "scalar", "hidden", "sharp_hidden"])
@pytest.mark.parametrize("name", FOLDED)
def test_transformers_alone_gives_calibrated_probabilities(
    name: str, energy: str, tmp_path: Path
) -> None:
    ours = classifier(energy)
    logits, energies = ours.score(TEXTS)
    uncalibrated = ours.predict_proba(TEXTS)
    ours.calibrator = fitted(name)
    ours.save_pretrained(tmp_path)
    wanted = ours.predict_proba(TEXTS)
    np.testing.assert_allclose(by_transformers(tmp_path), wanted, atol=1e-5)
    assert np.abs(wanted - uncalibrated).max() > 0.03
    again = EnergyClassifier.from_pretrained(tmp_path)
    # The energy is a function of the logits before calibration: to the last bit as before.
    new_logits, new_energies = again.score(TEXTS)
    assert new_logits.equal(logits)
    assert (energies is None) == (new_energies is None) == (energy == "none")
    if energies is not None and new_energies is not None:
        assert new_energies.equal(energies)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), wanted)
    assert (again.calibrator.words, again.calibrator.name) == (ours.calibrator.words, name)
    # And what was saved is not the sharp energy of the calibrated logits, the control.
    raw = AutoModelForSequenceClassification.from_pretrained(tmp_path).classifier.out_proj
    assert not raw.weight.equal(
        again.network.classifier.get_submodule("classifier.out_proj").weight
    )


@pytest.mark.parametrize("name", BESIDE)
def test_the_others_lie_beside_it_as_plain_numbers(name: str, tmp_path: Path) -> None:
    ours = classifier()
    uncalibrated = ours.predict_proba(TEXTS)
    ours.calibrator = fitted(name)
    ours.save_pretrained(tmp_path)
    again = EnergyClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), ours.predict_proba(TEXTS))
    assert np.abs(ours.predict_proba(TEXTS) - uncalibrated).max() > 0.03
    np.testing.assert_allclose(by_transformers(tmp_path), uncalibrated, atol=1e-5)
    facts = json.loads((tmp_path / FACTS).read_text())
    assert facts["folded_into"] is None and facts["calibrator"]["name"] == name
    assert not (tmp_path / UNCALIBRATED).exists()
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert ours.predict_proba([]).shape == (0, 3)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["vector", "isotonic", "none"])
def test_a_calibrator_takes_the_place_of_another(name: str, tmp_path: Path) -> None:
    straight, detour = tmp_path / "straight", tmp_path / "detour"
    for folder, names in ((straight, [name]), (detour, ["temperature", "matrix", name, name])):
        ours = classifier()
        ours.save_pretrained(folder)
        for one in names:
            loaded = EnergyClassifier.from_pretrained(folder)
            loaded.calibrator = fitted(one)
            assert loaded.save_calibrator(folder) == (one not in BESIDE)
    assert files(straight) == files(detour)


@pytest.mark.parametrize("first", ["none", "temperature"])
@pytest.mark.parametrize("then", ["vector", "platt"])
def test_stopped_anywhere_nothing_is_lost_and_done_again_it_is_as_uninterrupted(
    first: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = classifier()
    logits, _ = ours.score(TEXTS)
    whole = tmp_path / "whole"
    for name in (first, then):
        ours.calibrator = fitted(name)
        ours.save_pretrained(whole)
    stops = 0
    for stop in range(9):
        folder = tmp_path / str(stop)
        ours.calibrator = fitted(first)
        ours.save_pretrained(folder)
        loaded = EnergyClassifier.from_pretrained(folder)
        loaded.calibrator = fitted(then)
        with monkeypatch.context() as patch:
            stopping_at(stop, patch)
            try:
                loaded.save_calibrator(folder)
            except KeyboardInterrupt:
                stops += 1
        after = EnergyClassifier.from_pretrained(folder)
        assert after.score(TEXTS)[0].equal(logits)
        after.calibrator = fitted(then)
        after.save_calibrator(folder)
        assert files(folder) == files(whole)
    # Writing facts is one place to be stopped at, head and folded weights two more; and where
    # one was folded before, the weights are first put back.
    assert stops == {"vector": 3, "platt": 1}[then] + (first == "temperature")


def stopping_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """A kill before the writing of number `step`."""
    done = 0

    def stoppable(write: Callable[..., Any]) -> Callable[..., Any]:
        def writing(*given: Any) -> Any:
            nonlocal done
            if done == step:
                raise KeyboardInterrupt
            done += 1
            return write(*given)

        return writing

    patch.setattr(module, "replace_whole", stoppable(module.replace_whole))
    patch.setattr(EnergyClassifier, "_write_weights", stoppable(EnergyClassifier._write_weights))


@pytest.mark.parametrize("damage", ["trained on", "head lost", "head broken", "layer renamed"])
def test_a_folder_whose_parts_do_not_belong_together_is_refused(
    damage: str, tmp_path: Path
) -> None:
    ours = classifier()
    ours.calibrator = fitted("vector")
    ours.save_pretrained(tmp_path)
    if damage == "trained on":
        weights = load_file(tmp_path / "model.safetensors")
        weights["classifier.out_proj.weight"] *= 1.02
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    elif damage == "head lost":
        (tmp_path / UNCALIBRATED).unlink()
    elif damage == "head broken":
        (tmp_path / UNCALIBRATED).write_bytes(b"half a fi")
    else:
        facts = json.loads((tmp_path / FACTS).read_text()) | {"folded_into": "lm_head"}
        (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(InputError, match="cannot be taken out of the classifier"):
        EnergyClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        {"name": "pickle"},
        {"name": "temperature", "temperature": -1.0, "lower": 0.1, "upper": 2.0},
        ["vector"],
        None,
        {**build_calibrator({"name": "vector"}).fit(torch.eye(2), torch.tensor([0, 1])).state()},
    ],
)
def test_a_calibrator_that_is_none_or_of_other_classes_is_refused(
    state: object, tmp_path: Path
) -> None:
    classifier().save_pretrained(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text()) | {"calibrator": state}
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(InputError, match=f"{FACTS} cannot be read"):
        EnergyClassifier.from_pretrained(tmp_path)


def test_a_folder_of_before_the_calibrators_is_read(tmp_path: Path) -> None:
    ours = classifier()
    ours.save_pretrained(tmp_path)
    facts = {"energy": "sharp_hidden", "temperature": 1.7, "labels": LABELS, "max_length": 16}
    (tmp_path / FACTS).write_text(json.dumps(facts))
    again = EnergyClassifier.from_pretrained(tmp_path)
    expected = torch.softmax(ours.score(TEXTS)[0].double() / 1.7, dim=1).numpy()
    np.testing.assert_allclose(again.predict_proba(TEXTS), expected, rtol=1e-12)
