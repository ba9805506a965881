"""What the settings make of a batch: groups by length, and noise of its texts' lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from calib_ebm.energy import packed
from calib_ebm.learn import joint
from calib_ebm.learn.run import run

Settings = Callable[..., dict[str, Any]]


def steps_of(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *words: str
) -> list[tuple[int, float, float]]:
    """Of each training step: groups, mean length of the data, mean length of the noise."""
    seen: list[tuple[int, float, float]] = []
    original = joint.score_joint

    def spy(passes: Any, batch: Any) -> Any:
        length = batch.tokens.attention_mask_BT.sum(dim=1).double()
        size = len(batch.label_B)
        if len(length) > size:
            seen.append((passes.groups, float(length[:size].mean()), float(length[size:].mean())))
        return original(passes, batch)

    with monkeypatch.context() as patch:
        patch.setattr(joint, "score_joint", spy)
        run(settings(*words, run=words[-1].replace("=", "-")), lambda line: None)
    assert len(seen) == 12
    return seen


def test_a_batch_is_encoded_in_as_many_groups_as_set(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("energy=hidden", "trainer.length_groups=3", "seed=1")
    assert {groups for groups, *_ in steps_of(settings, monkeypatch, *words)} == {3}


def test_mixup_is_encoded_in_one_pass_also_where_nothing_can_be_packed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks back at the one pass in which all texts were."""
    monkeypatch.setattr(packed, "_build_packed", lambda network, groups: None)
    words = ("energy=hidden", "trainer.length_groups=3", "loss=mixup", "seed=1")
    assert {groups for groups, *_ in steps_of(settings, monkeypatch, *words)} == {1}


def test_batches_of_one_length_get_noise_of_that_length(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside noise of any length their gradient would be about length."""
    words = ("energy=hidden", "optim.length_window=50")
    _, data, noise = np.array(steps_of(settings, monkeypatch, *words)).T
    assert np.ptp(data) > 5
    assert np.ptp(noise) > 5
    # An order and no line: much of the noise of a hardly tuned model is as long as noise may be.
    longer, shorter = np.nonzero(data[:, None] > data[None, :] + 1)
    assert (noise[longer] >= noise[shorter] - 0.5).all()
