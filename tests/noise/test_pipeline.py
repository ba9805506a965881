from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from calib_ebm.errors import InputError, Interrupted
from calib_ebm.noise import pipeline
from calib_ebm.noise.bank import NoiseBank
from calib_ebm.noise.lm import NoiseLm
from calib_ebm.noise.modes import Mode
from calib_ebm.noise.pipeline import (
    NoiseTask,
    TunedLm,
    TuningResult,
    ensure_bank,
    ensure_noise_lm,
    held_out_seed,
    rows_needed,
    texts_digest,
)
from calib_ebm.noise.progress import drawing_progress
from calib_ebm.noise.sampler import Sampler
from calib_ebm.shapes import Encoded

CONFIG: dict[str, Any] = {
    "mode": "masked",
    "lm": "small",
    "mask_rate": 0.4,
    "per_text": 1,
    "top_k": 3,
    "temperature": 1.0,
    "bank_size": None,
    "bank_epochs": 4,
    "draw_batch_size": 16,
    "small": {"layers": 1, "width": 16, "heads": 2, "dropout": 0.0},
    "tune": {"lr": 1e-3, "prefix_length": 12, "target_length": 12},
}


class CountingTuner:
    """Changes no weight, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        noise_lm: NoiseLm,
        train: Sequence[Encoded],
        held_out: Sequence[Encoded],
        mode: Mode,
        options: Mapping[str, Any],
        folder: Path,
        seed: int,
    ) -> TuningResult:
        self.calls += 1
        folder.mkdir(parents=True)
        (folder / "last.ckpt").write_text("")
        return TuningResult(12.5, 12.0, 13.0, 0.0, 100, 1.0, 10)


@pytest.fixture
def task(singles: list[Encoded], tokenizer: Any) -> NoiseTask:
    held_out = [Encoded([4, 3, 9], None, 0), Encoded([5, 3], None, 1)]
    return NoiseTask("tea", "digest-of-tea", 2, singles, held_out, tokenizer)


class Stage(NamedTuple):
    """A noise model and both banks, with what was found of them."""

    tuned: TunedLm
    train: NoiseBank
    held_out: NoiseBank
    reused: tuple[bool, bool, bool]


Ensure = Callable[..., Stage]


@pytest.fixture
def tuner() -> CountingTuner:
    return CountingTuner()


@pytest.fixture
def ensure(task: NoiseTask, tuner: CountingTuner, tmp_path: Path) -> Ensure:
    def call(of: NoiseTask = task, seed: int = 1, **settings: Any) -> Stage:
        config, cache = CONFIG | settings, tmp_path / "cache"
        tuned = ensure_noise_lm(config, of, cache, seed, tuner)
        train, found = ensure_bank(config, of, tuned, cache, seed, 20, device="cpu")
        other = held_out_seed(seed)
        held_out, held_out_found = ensure_bank(
            config, of, tuned, cache, other, 6, held_out=True, device="cpu"
        )
        return Stage(tuned, train, held_out, (tuned.reused, found, held_out_found))

    return call


def test_all_is_made_once_and_found_again(ensure: Ensure, tuner: CountingTuner) -> None:
    made = ensure()
    assert made.reused == (False, False, False)
    found = ensure()
    assert found.reused == (True, True, True)
    assert tuner.calls == 1
    assert list(found.train) == list(made.train)
    assert (len(found.train), len(found.held_out)) == (20, 6)
    assert found.tuned.manifest["perplexity"] == 12.5
    bank = json.loads(json.dumps(found.train.manifest))
    assert (bank["task_name"], bank["mode"], bank["mask_rate"]) == ("tea", "masked", 0.4)
    assert (bank["token_path"], bank["perplexity"], bank["drops"]) == ("own", 12.5, 0)


def test_held_out_noise_is_drawn_around_held_out_texts(ensure: Ensure, task: NoiseTask) -> None:
    stage = ensure()
    assert stage.held_out.manifest["plan"]["texts"] == texts_digest(task.held_out)
    assert stage.train.manifest["plan"]["texts"] == texts_digest(task.train)
    assert set(stage.held_out.sources.tolist()) == {0, 1}
    assert set(stage.train.sources.tolist()) == {0, 1, 2, 3}


def test_a_bank_in_another_one_s_place_is_refused(ensure: Ensure) -> None:
    stage = ensure()
    shutil.rmtree(stage.train.folder)
    shutil.copytree(stage.held_out.folder, stage.train.folder)
    with pytest.raises(InputError, match="was drawn for"):
        ensure()


def test_held_out_noise_without_prefixes_is_not_the_training_noise(ensure: Ensure) -> None:
    stage = ensure(mode="unconditional")
    assert list(stage.held_out) != list(stage.train)[:6]


@pytest.mark.parametrize(
    ("setting", "retunes"),
    [
        ({"mask_rate": 0.3}, True),
        ({"mode": "unconditional"}, True),
        ({"small": {"layers": 1, "width": 16, "heads": 4, "dropout": 0.0}}, True),
        ({"tune": {**CONFIG["tune"], "lr": 2e-3}}, True),
        ({"seed": 2}, True),
        ({"top_k": 2}, False),
        ({"temperature": 0.5}, False),
    ],
    ids=str,
)
def test_whatever_determines_noise_is_in_its_digest(
    ensure: Ensure, tuner: CountingTuner, setting: dict[str, Any], retunes: bool
) -> None:
    before = ensure()
    after = ensure(**setting)
    assert after.train.folder != before.train.folder
    assert tuner.calls == 1 + retunes


def test_what_does_not_determine_noise_is_not(ensure: Ensure, tuner: CountingTuner) -> None:
    before = ensure()
    after = ensure(per_text=8, bank_epochs=1, draw_batch_size=3)
    assert after.train.folder == before.train.folder
    assert all(after.reused)


def test_other_texts_or_another_tokenizer_get_noise_of_their_own(
    ensure: Ensure, tuner: CountingTuner, task: NoiseTask
) -> None:
    ensure()
    fewer = NoiseTask(task.name, task.digest, 2, task.train[:3], task.held_out, task.tokenizer)
    assert not ensure(of=fewer).reused[0]
    task.tokenizer.digest = "other words"
    assert not ensure().reused[1]
    assert tuner.calls == 3


def test_nothing_but_what_is_whole_is_left_behind(ensure: Ensure, tmp_path: Path) -> None:
    stage = ensure()
    folders = {path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()}
    assert folders == {stage.tuned.folder, stage.train.folder, stage.held_out.folder}


def test_drawing_that_was_interrupted_goes_on_and_ends_as_undisturbed(
    ensure: Ensure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calib_ebm.noise.bank.shard_size_of", lambda count: 4)
    draw, calls = Sampler.draw, 0

    def stops(self: Sampler, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return draw(self, *args)

    monkeypatch.setattr(Sampler, "draw", stops)
    with pytest.raises(Interrupted, match="drawing train noise"):
        ensure()
    stage = ensure()
    assert stage.reused[0]
    # Two shards before, one that was interrupted, three after; two for the held-out noise.
    assert calls == 3 + 3 + 2
    texts = list(stage.train)
    for file in stage.train.folder.iterdir():
        file.unlink()
    stage.train.folder.rmdir()
    assert list(ensure().train) == texts


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def other_perplexity(path: Path) -> None:
    path.write_text(path.read_text().replace('"perplexity": 12.5', '"perplexity": 12.4'))


@pytest.mark.parametrize(
    ("file", "damage", "named"),
    [
        ("manifest.json", lambda path: path.write_text("{}"), "manifest.json is missing or broken"),
        ("manifest.json", lambda path: path.write_text("[]"), "manifest.json is missing or broken"),
        ("manifest.json", lambda path: path.unlink(), "manifest.json is missing or broken"),
        ("manifest.json", other_perplexity, "manifest.json is missing or broken"),
        ("model.safetensors", flip_a_byte, "model.safetensors is missing, cut short or changed"),
        ("model.safetensors", lambda path: path.unlink(), "model.safetensors is missing"),
        ("vocabulary.json", flip_a_byte, "vocabulary.json is missing, cut short or changed"),
    ],
    ids=["no entries", "a list", "absent", "a number", "weights", "no weights", "vocabulary"],
)
def test_a_damaged_noise_model_is_refused(
    ensure: Ensure, file: str, damage: Callable[[Path], Any], named: str
) -> None:
    folder = ensure().tuned.folder
    before = (folder / file).read_bytes()
    damage(folder / file)
    assert not (folder / file).exists() or (folder / file).read_bytes() != before
    with pytest.raises(InputError, match="damaged") as caught:
        ensure()
    assert named in caught.value.given
    assert "Remove the folder" in caught.value.to_do
    (folder / file).write_bytes(before)
    assert ensure().tuned.reused


def test_a_noise_model_of_before_there_were_lists_of_files_is_taken(ensure: Ensure) -> None:
    manifest = ensure().tuned.folder / "manifest.json"
    entries = json.loads(manifest.read_text())
    del entries["files"], entries["sha256"]
    manifest.write_text(json.dumps(entries))
    assert ensure().tuned.reused


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"mask_rate": 1.0}, "noise.mask_rate"),
        ({"mode": "half"}, "single texts"),
        ({"mode": "none"}, "noise.mode"),
        ({"top_k": -1}, "noise.top_k"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(
    ensure: Ensure, tuner: CountingTuner, setting: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        ensure(**setting)
    assert tuner.calls == 0


def test_a_bank_without_samples_is_refused(
    task: NoiseTask, tuner: CountingTuner, tmp_path: Path
) -> None:
    tuned = ensure_noise_lm(CONFIG, task, tmp_path, 1, tuner)
    with pytest.raises(InputError, match="0 samples"):
        ensure_bank(CONFIG, task, tuned, tmp_path, 1, 0)


def test_the_bank_is_as_large_as_training_needs() -> None:
    config = CONFIG | {"per_text": 3}
    assert rows_needed(config, places=100, total=1000) == 3 * 100 * 4  # bank_epochs
    assert rows_needed(config, places=100, total=150) == 3 * 100 * 2
    assert rows_needed(config, places=70, total=70) == 3 * 70
    assert rows_needed(config | {"bank_size": 17}, places=70, total=70) == 17
    for bad in ("per_text", "bank_epochs"):
        with pytest.raises(InputError, match=f"noise.{bad}"):
            rows_needed(config | {bad: 0}, places=70, total=70)


def test_without_a_terminal_progress_is_a_few_lines_with_the_rate() -> None:
    said: list[str] = []
    with drawing_progress("drawing noise", 100, said.append, parts=4) as advance:
        for _ in range(10):
            advance(10)
    assert [line.split(",")[0] for line in said] == [
        f"drawing noise: {done} of 100" for done in (30, 50, 80, 100)
    ]
    assert all(line.endswith(" samples/s") for line in said)


def test_saved_and_found_noise_models_are_the_tuned_ones(task: NoiseTask, tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []

    class Doubling(CountingTuner):
        def __call__(self, noise_lm: NoiseLm, *args: Any, **kwargs: Any) -> TuningResult:
            with torch.no_grad():
                for parameter in noise_lm.parameters():
                    parameter.mul_(2)
            kept.extend(p.detach().clone() for p in noise_lm.parameters())
            return super().__call__(noise_lm, *args, **kwargs)

    for _ in range(2):
        tuned = ensure_noise_lm(CONFIG, task, tmp_path, 1, Doubling())
        for ours, theirs in zip(tuned.lm.parameters(), kept, strict=True):
            assert torch.equal(ours, theirs)


def test_each_process_of_a_machine_draws_on_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for rank, place in {"0": 0, "1": 1, "3": 1}.items():
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert pipeline._device("auto") == torch.device("cuda", place)
    assert pipeline._device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pipeline._device("auto") == torch.device("cpu")
