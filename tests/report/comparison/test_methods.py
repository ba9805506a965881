from __future__ import annotations

from typing import Any

import pytest

from calib_ebm.errors import InputError
from calib_ebm.report.comparison.methods import (
    find_baseline,
    method_settings,
    names_of_methods,
)


def flat(energy: str = "none", **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "seed": 1,
        "run_dir": "somewhere",
        "task": {"name": "a", "data_dir": "x", "recipe": {"lr": 1.0}, "max_length": 32},
        "energy": {"name": energy, "dropout": 0.1},
        "loss": {"name": "cross_entropy", "nce_weight": 1.0},
        "noise": {"name": "masked", "per_text": 1},
        "calibrator": {"name": "temperature"},
        "encoder": {"name_or_path": "one/small"},
        "trainer": {"max_steps": 10, "threads": 1},
    }
    for name, value in more.items():
        group, _, key = name.partition("__")
        config[group] = {**config[group], key: value} if key else value
    return method_settings(config)


def names(*settings: dict[str, Any], tasks: tuple[str, ...] | None = None) -> list[str]:
    return names_of_methods(tasks or ("a",) * len(settings), settings)


def test_seed_place_and_machine_make_no_method() -> None:
    assert flat() == flat(
        seed=2, run_dir="elsewhere", trainer__threads=8, task__data_dir="y", trainer__graphs=False
    )
    assert flat() != flat(trainer__max_steps=20)  # the control


def test_plain_fine_tuning_is_the_same_whatever_its_noise_would_be() -> None:
    assert flat() == flat(noise__per_text=8, loss__nce_weight=5.0, energy__dropout=0.3)
    assert flat("hidden") != flat("hidden", noise__per_text=8)


def test_another_loss_is_another_method() -> None:
    assert flat(loss__name="cross_entropy") == flat()
    assert flat(loss__name="focal") != flat()


def test_a_name_says_what_parts_the_runs_and_no_more() -> None:
    # The weight of the loss is decided by the energy and would say nothing further.
    hidden = flat("hidden", loss__nce_weight=2.0)
    assert names(flat(), hidden) == ["plain fine-tuning", "hidden"]
    assert names(hidden, hidden) == ["hidden", "hidden"]
    assert names(hidden, flat("hidden", loss__nce_weight=2.0, noise__per_text=8)) == [
        "hidden, K=1",
        "hidden, K=8",
    ]


def test_names_of_losses_noise_calibrators_and_other_settings() -> None:
    assert names(
        flat(loss__name="focal"),
        flat("hidden", loss__name="focal"),
        flat("hidden", noise__name="half"),
        flat("hidden", noise__name="masked", calibrator__name="none", trainer__max_steps=20),
        flat("hidden", noise__name="masked", calibrator__name="none", trainer__max_steps=10),
        flat("hidden", noise__name="masked", calibrator__name="vector"),
    ) == [
        "focal, calibrator temperature, max_steps=10",
        "hidden + focal, masked noise, calibrator temperature, max_steps=10",
        "hidden, half noise, calibrator temperature, max_steps=10",
        "hidden, masked noise, no calibrator, max_steps=20",
        "hidden, masked noise, no calibrator, max_steps=10",
        "hidden, masked noise, calibrator vector, max_steps=10",
    ]


def test_tasks_may_differ_in_settings_that_their_methods_share() -> None:
    settings = [flat(trainer__max_steps=1), flat("hidden", trainer__max_steps=1)]
    settings += [flat(trainer__max_steps=2), flat("hidden", trainer__max_steps=2)]
    found = names_of_methods(["a", "a", "b", "b"], settings)
    assert found == ["plain fine-tuning", "hidden"] * 2
    # The control: of one task they would be four methods.
    assert len({*names(*settings)}) == 4


def test_a_setting_that_a_run_of_another_version_lacks_makes_no_method() -> None:
    newer = flat() | {"loss.smoothing": 0.0}
    assert names(flat(), newer) == ["plain fine-tuning"] * 2
    assert len({*names(newer, newer | {"loss.smoothing": 0.1})}) == 2


def test_two_encoders_of_one_name_are_told_apart() -> None:
    ours, theirs = flat(), flat(encoder__name_or_path="two/small")
    assert names(ours, theirs) == [
        "plain fine-tuning, one/small",
        "plain fine-tuning, two/small",
    ]
    assert names(ours, flat(encoder__name_or_path="two/large")) == [
        "plain fine-tuning, small",
        "plain fine-tuning, large",
    ]


def test_the_baseline_is_plain_fine_tuning_and_of_several_the_most_frequent() -> None:
    settings = [flat(), flat("hidden"), flat(trainer__max_steps=5), flat(trainer__max_steps=5)]
    found = find_baseline(names(*settings), settings)
    assert found == "plain fine-tuning, max_steps=5"
    assert find_baseline(["hidden"], [flat("hidden")]) is None
    assert find_baseline(["focal"], [flat(loss__name="focal")]) is None


def test_another_baseline_is_taken_by_its_name_or_refused() -> None:
    settings = [flat(), flat("hidden")]
    assert find_baseline(names(*settings), settings, "hidden") == "hidden"
    with pytest.raises(InputError, match="baseline='scalar'") as refused:
        find_baseline(names(*settings), settings, "scalar")
    assert refused.value.allowed == "hidden | plain fine-tuning"
