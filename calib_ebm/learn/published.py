"""What a training leaves: the model folder, and what its scores of held-out texts come to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calib_ebm.classifier import EnergyClassifier
from calib_ebm.errors import InputError
from calib_ebm.learn.measure import Measured, score_set, write_measurements
from calib_ebm.learn.noise_supply import NoiseSupply
from calib_ebm.learn.prepare import Material
from calib_ebm.learn.progress import counting
from calib_ebm.learn.record import RunRecorder
from calib_ebm.ranks import is_first_process
from calib_ebm.windows import TOKENS_GPU

Config = Mapping[str, Any]
Say = Callable[[str], None]

NOT_FOLDED = (
    "calibrator={} cannot be folded into the classifier: EnergyClassifier applies it, while "
    "transformers alone gives the classifier's own probabilities."
)


def publish(classifier: EnergyClassifier, model: Path) -> None:
    """Put the model folder in place whole.

    Raises:
        InputError: when the disk does not take it.
    """
    part = model.with_name("model.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        classifier.save_pretrained(part)
    except OSError as error:
        raise InputError(
            f"The model could not be written to {part} ({error.strerror or error}).",
            "a disk with space left",
            "Make space and give the same command again; training goes on from its checkpoint.",
        ) from error
    part.replace(model)


def measure(
    config: Config,
    material: Material,
    supply: NoiseSupply | None,
    classifier: EnergyClassifier,
    folder: Path,
    recorder: RunRecorder,
    say: Say,
) -> None:
    """Score what was held out, fit the calibrator, write every figure and the calibrated model.

    Args:
        config: of the run.
        material: its texts.
        supply: its noise, if it has any.
        classifier: as it was trained; it gets its calibrator.
        folder: of the run.
        recorder: of its facts.
        say: takes lines for the person.
    """
    if next(classifier.network.parameters()).device.type != "cpu":
        # What was room enough for while training, at least.
        texts = int(config["trainer"]["eval_batch_size"])
        classifier.tokens_per_pass = min(TOKENS_GPU, texts * classifier.tokenizer.max_length)
    measured = _score(material, supply, classifier, say)
    if not is_first_process():
        return
    further: dict[str, float] = {}
    true_energies = None
    if supply is not None:
        further |= supply.metrics
        true_energies = supply.true_energies(material)
        noise_energy = None if measured.noise is None else measured.noise.energy_N
        supply.write_samples(folder, material, noise_energy)
    calibrator = write_measurements(
        folder,
        material.task,
        measured,
        config["calibrator"],
        further,
        per_text=1 if supply is None else supply.per_text,
        seed=int(config["seed"]),
        true_energies=true_energies,
    )
    classifier.calibrator = calibrator
    folded = classifier.save_calibrator(folder / "model")
    recorder.set(temperature=calibrator.temperature, calibrator=calibrator.state())
    recorder.note(*calibrator.notes, "" if folded else NOT_FOLDED.format(calibrator.name))


def _score(
    material: Material, supply: NoiseSupply | None, classifier: EnergyClassifier, say: Say
) -> Measured:
    """Logits and energies of all that was held out."""
    same = material.task.folds is not None
    noise = () if supply is None else supply.held_out
    texts = len(material.fit) + (0 if same else len(material.test))
    say(f"Measuring on {texts} held-out texts{f' and {len(noise)} of noise' * bool(noise)}.")
    with counting("measuring", texts + len(noise), say) as tell:
        fit = score_set(classifier, material.fit, tell=tell)
        return Measured(
            fit=fit,
            test=fit if same else score_set(classifier, material.test, tell=tell),
            noise=score_set(classifier, noise, tell=tell) if noise else None,
        )
