"""Each label loss trains on the embedded task, with and without an energy, and goes on exactly."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, RobertaForMaskedLM

from calib_ebm import EnergyClassifier
from calib_ebm.errors import InputError, Interrupted
from calib_ebm.learn.joint import JointModule
from calib_ebm.learn.run import run
from calib_ebm.loss.poscal import PosCal, bin_counts, table_of
from calib_ebm.report.files import read_predictions
from calib_ebm.text.load import load_task
from calib_ebm.tokens.collate import pad_batch

Settings = Callable[..., dict[str, Any]]


def quiet(_: str) -> None:
    """Nobody listens."""


def rows(folder: Path) -> list[dict[str, str]]:
    """history.csv."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(ours: Path, theirs: Path) -> bool:
    """Whether two runs have the same weights."""
    first, second = weights(ours), weights(theirs)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        ("none", ("loss=label_smoothing",)),
        ("none", ("loss=focal",)),
        ("none", ("loss=confidence_penalty", "loss.beta=2")),
        ("none", ("loss=mixup", "loss.alpha=1")),
        ("sharp_hidden", ("loss=label_smoothing",)),
        ("sharp_hidden", ("loss=mixup", "loss.alpha=1")),
    ],
)
def test_each_trains_and_tells_the_cross_entropy_too(
    settings: Settings, energy: str, words: tuple[str, ...]
) -> None:
    # One group: mixup takes one, and other groups would draw other dropout.
    short = ("trainer.max_steps=3", "trainer.length_groups=1", f"energy={energy}")
    folder = run(settings(*short, *words, run="ours"), quiet)
    plain = run(settings(*short, run="plain"), quiet)
    ours, theirs = rows(folder), rows(plain)
    assert "loss/label" not in theirs[0]
    # The same weights to begin with, another loss of them, and so other weights at the end.
    assert ours[0]["loss/ce"] == theirs[0]["loss/ce"]
    assert all(row["loss/label"] != row["loss/ce"] for row in ours)
    assert ("loss/nce" in ours[0]) == (energy != "none")
    assert not same(folder, plain)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["loss"] == words[0].removeprefix("loss=")


def unmoved(settings: Settings) -> Path:
    """A run whose weights are those that it began with."""
    return run(settings("energy=none", "trainer.max_steps=1", "optim.lr=1e-30", run="0"), quiet)


def resumed_and_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int, *words: str
) -> tuple[Path, Path]:
    """A run that Ctrl-C stopped within a step and that went on; one that was left alone."""
    whole = run(settings(*words, run="whole"), quiet)
    halted = settings(*words, run="halted")
    original = JointModule.training_step

    def stopped(self: JointModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(JointModule, "training_step", stopped)
        with pytest.raises(Interrupted, match=f"step {step + 1} of 12"):
            run(halted, quiet)
    return run(halted, quiet), whole


def test_mixup_stopped_and_gone_on_with_is_mixup(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = resumed_and_whole(settings, monkeypatch, 5, "loss=mixup", "energy=none")
    assert same(ours, theirs) and rows(ours) == rows(theirs)


def test_a_gate_stopped_and_gone_on_with_is_that_gate(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("energy=scalar", "loss.gate=0.05", "loss.nce_weight=2", "optim.lr=0.03")
    ours, theirs = resumed_and_whole(settings, monkeypatch, 7, *words)
    assert same(ours, theirs) and rows(ours) == rows(theirs)
    history = rows(ours)
    opening = [float(row["loss/gate"]) for row in history]
    assert opening[0] == 0, "shut at first"
    assert opening[8] > 0.001, "what is gone on with is no gate that was never moved"
    for row in history:
        total = float(row["loss/ce"]) + 2 * float(row["loss/gate"]) * float(row["loss/nce"])
        assert float(row["loss/total"]) == pytest.approx(total, rel=1e-5)
    free = run(settings(*words, "loss.gate=0", run="free"), quiet)
    assert "loss/gate" not in rows(free)[0] and not same(ours, free)
    plain = run(settings(*words, "energy=none", run="plain"), quiet)
    notes = {at: json.loads((at / "run.json").read_text())["notes"] for at in (ours, free, plain)}
    told = [
        any("labels are hardly learned" in note for note in of_one) for of_one in notes.values()
    ]
    assert told == [True, False, False], "that the noise never came to its weight"


POSCAL = ("energy=none", "loss=poscal", "loss.refreshes_per_epoch=2")  # every third step


@pytest.mark.parametrize("table", ["recent", "rescored"])
@pytest.mark.parametrize("step", [4, 5])
def test_poscal_stopped_and_gone_on_with_is_poscal(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, table: str, step: int
) -> None:
    """Stopped in the middle between two refreshes, and right before one."""
    ours, theirs = resumed_and_whole(settings, monkeypatch, step, *POSCAL, f"loss.table={table}")
    assert same(ours, theirs) and rows(ours) == rows(theirs)


@torch.no_grad()
def counts_one_by_one(module: JointModule) -> Tensor:
    """Counts of the training texts, each scored for itself; the model has no dropout."""
    data = module.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
    counts = torch.zeros(2, 2, 20, dtype=torch.long)
    for text in data.train:
        logits_BC = module.network(pad_batch(data.tokenizer, [text])).logits_BC
        counts += bin_counts(logits_BC.softmax(-1), torch.tensor([text.label]), 20)
    return counts


@pytest.mark.parametrize("table", ["recent", "rescored"])
def test_poscal_s_table_is_that_of_the_training_texts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    # Without dropout, so that a pass can be repeated.
    still = ("encoder.small.dropout=0", "loss.distance=mse", f"loss.table={table}")
    tables: dict[int, Tensor] = {}
    logits: dict[int, tuple[Tensor, Tensor]] = {}
    whole: list[Tensor] = []
    original = JointModule.training_step

    def recording(self: JointModule, batch: Any, batch_idx: int) -> Any:
        label = self.loss.label
        assert isinstance(label, PosCal)
        tables[self.global_step] = label.table_CM.clone()
        if self.global_step == 0:
            whole.append(counts_one_by_one(self))
        with torch.no_grad():
            found = self.network(batch.tokens).logits_BC
        logits[self.global_step] = (found.softmax(-1), batch.label_B)
        loss = original(self, batch, batch_idx)
        if self.global_step == 2:
            # As if training had moved the probabilities out of their bins.
            with torch.no_grad():
                self.network.classifier.classifier.out_proj.bias[0] += 2
        return loss

    monkeypatch.setattr(JointModule, "training_step", recording)
    folder = run(settings(*POSCAL, *still), quiet)
    if table == "recent":
        assert tables[0].abs().max() == 0
        for at in (3, 6, 9):
            seen = sum(bin_counts(*logits[step], 20) for step in range(at - 3, at))
            assert torch.equal(tables[at], table_of(torch.as_tensor(seen)))
            assert torch.equal(tables[at + 1], tables[at])
    else:
        assert len(whole) == 1
        assert whole[0][1].sum() == 96  # each of the 96 texts is of one class
        assert torch.equal(tables[0], table_of(whole[0]))
        assert torch.equal(tables[1], tables[0])
    assert not torch.equal(tables[6], tables[2])
    history = rows(folder)
    assert all(float(row["loss/poscal"]) > 0 for row in history[3:])
    assert (float(history[0]["loss/poscal"]) > 0) == (table == "rescored")


@pytest.fixture
def pretrained(settings: Settings, tmp_path: Path) -> Path:
    """A masked LM with its tokenizer, small and random, as transformers saves it."""
    model = run(settings("energy=none", "trainer.max_steps=1", run="first"), quiet) / "model"
    torch.manual_seed(5)
    lm = RobertaForMaskedLM(AutoConfig.from_pretrained(model))
    folder = tmp_path / "pretrained"
    lm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def test_joint_mlm_begins_at_its_teacher_and_goes_on_exactly(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, pretrained: Path
) -> None:
    still = [f"encoder.options.{part}_dropout_prob=0" for part in ("hidden", "attention_probs")]
    words = ("energy=none", "loss=joint_mlm", f"encoder.name_or_path={pretrained}", *still)
    ours, theirs = resumed_and_whole(settings, monkeypatch, 5, *words)
    assert same(ours, theirs) and rows(ours) == rows(theirs)
    history = rows(ours)
    # The first step has a learning rate of 0, so the second too is at the pretrained weights.
    for name in ("loss/mlm", "loss/tie"):
        assert abs(float(history[0][name])) < 1e-6 < float(history[-1][name]), name
    weights_of = {"ce": 1, "mlm": 0.3, "tie": 1}
    parts = [weight * float(history[-1][f"loss/{name}"]) for name, weight in weights_of.items()]
    assert float(history[-1]["loss/total"]) == pytest.approx(sum(parts), rel=1e-6)
    # A plain classifier comes out, and the copies stand in no checkpoint.
    assert set(weights(ours)) == set(weights(settings_run(settings)))
    free = run(settings(*words, "loss.tie_weight=0", "loss.mlm_weight=0", run="free"), quiet)
    assert "loss/mlm" not in rows(free)[0] and not same(ours, free)


def settings_run(settings: Settings) -> Path:
    """The folder of the fixture's first run."""
    return Path(settings(run="first")["run_dir"])


def test_joint_mlm_holds_the_representations(settings: Settings, pretrained: Path) -> None:
    words = ("energy=none", "loss=joint_mlm", "optim.lr=0.01", "loss.mlm_weight=0")
    encoder = f"encoder.name_or_path={pretrained}"
    tied, loose = (
        run(settings(*words, encoder, f"loss.tie_weight={weight}", run=f"tie{weight}"), quiet)
        for weight in (100, 0.001)
    )
    ends = [float(rows(folder)[-1]["loss/tie"]) for folder in (tied, loose)]
    assert 0 < ends[0] < 0.75 * ends[1]


def test_joint_mlm_without_a_pretrained_head_learns_the_tokens_and_says_so(
    settings: Settings,
) -> None:
    said: list[str] = []
    words = ("loss=joint_mlm", "optim.lr=0.01", "trainer.max_steps=40", "energy=none")
    folder = run(settings(*words), said.append)
    assert any("begins with random weights" in line for line in said)
    history = rows(folder)
    assert "loss/tie" not in history[0]
    first, last = (
        sum(float(row["loss/mlm"]) for row in part) / 5 for part in (history[:5], history[-5:])
    )
    assert last < first - 0.3
    headless = f"encoder.name_or_path={folder / 'model'}"
    short = ("loss=joint_mlm", "energy=none", "trainer.max_steps=2", headless)
    run(settings(*short, run="headless"), said.append)
    assert any("has no masked LM's head" in line for line in said)
    with pytest.raises(InputError, match=r"loss\.targets is 'teacher'"):
        run(settings(*short, "loss.targets=teacher", run="refused"), quiet)


def test_joint_mlm_joins_an_energy(settings: Settings, pretrained: Path) -> None:
    words = ("loss=joint_mlm", "energy=sharp_hidden", f"encoder.name_or_path={pretrained}")
    still = ("trainer.max_steps=2", "loss.nce_weight=2", "loss.gate=0")
    last = rows(run(settings(*words, *still), quiet))[-1]
    total = sum(
        weight * float(last[f"loss/{name}"])
        for name, weight in (("ce", 1), ("nce", 2), ("mlm", 0.3), ("tie", 1))
    )
    assert float(last["loss/total"]) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("loss=joint_mlm", "loss.mask_rate=1.5"), "loss.mask_rate is 1.5"),
        (("loss=poscal", "loss.bins=0"), "loss.bins is 0"),
        (("loss=focal", "loss.gamma=-2"), "loss.gamma is -2"),
    ],
)
def test_what_cannot_be_is_refused_before_the_noise_is_made(
    settings: Settings, words: tuple[str, ...], said: str
) -> None:
    config = settings(*words)
    with pytest.raises(InputError) as refused:
        run(config, quiet)
    assert said in str(refused.value)
    assert not Path(config["cache_dir"]).exists()


def test_decay_towards_the_pretrained_goes_on_exactly_and_is_not_that_towards_zero(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    strong = ("energy=none", "optim.weight_decay=20")
    words = (*strong, "optim.decay_towards=pretrained")
    ours, theirs = resumed_and_whole(settings, monkeypatch, 6, *words)
    assert same(ours, theirs) and rows(ours) == rows(theirs)
    zero = run(settings(*strong, run="zero"), quiet)
    name = "roberta.encoder.layer.0.attention.self.query.weight"
    start = unmoved(settings)
    near, far = ((weights(folder)[name] - weights(start)[name]).norm() for folder in (ours, zero))
    assert near < far
    head = "classifier.out_proj.weight"  # new, so it decays towards zero in both
    assert weights(ours)[head].norm() < weights(start)[head].norm()


LORA = ("encoder.lora.rank=2", "encoder.lora.targets=all_linear", "optim.lr=0.01")


def test_lora_goes_on_exactly_and_leaves_a_plain_model(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("energy=scalar", *LORA)
    ours, theirs = resumed_and_whole(settings, monkeypatch, 5, *words)
    assert same(ours, theirs) and rows(ours) == rows(theirs)
    plain = unmoved(settings)
    before, after = weights(plain), weights(ours)
    assert before.keys() == after.keys()
    layer = "roberta.encoder.layer.0."
    still = [layer + "output.LayerNorm.weight", "roberta.embeddings.word_embeddings.weight"]
    assert all(torch.equal(before[name], after[name]) for name in still)
    change = (
        after[layer + "intermediate.dense.weight"] - before[layer + "intermediate.dense.weight"]
    )
    assert torch.linalg.matrix_rank(change.double(), rtol=1e-4) == 2
    # What the run measured is what transformers alone computes from the folder.
    table = read_predictions(ours)
    classifier = EnergyClassifier.from_pretrained(ours / "model")
    config = settings("energy=scalar")
    texts = {e.id: e.text for e in load_task(config["task"], config["seed"]).test}
    here = [row for row, name in enumerate(table.ids) if name in texts]
    logits, _ = classifier.score([texts[table.ids[row]] for row in here])
    torch.testing.assert_close(
        logits.double(), torch.from_numpy(table.logits_NC[here]), atol=1e-5, rtol=0
    )


def test_lora_and_a_decay_towards_the_pretrained_exclude_one_another(settings: Settings) -> None:
    config = settings("energy=none", "encoder.lora.rank=2", "optim.decay_towards=pretrained")
    with pytest.raises(InputError, match="do not move"):
        run(config, quiet)
