"""The torchmetrics classes give the pure functions' values, however the texts are cut up."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from calib_ebm.calibration import accuracy, errors, ood, ordered, selective
from calib_ebm.calibration.brier import brier_parts
from calib_ebm.calibration.metrics import (
    F1,
    MCC,
    NLL,
    Accuracy,
    Brier,
    BrierDecomposition,
    ClasswiseECE,
    PooledECE,
    SmoothECE,
    TopLabelECE,
    metric_collection,
)
from calib_ebm.calibration.metrics_stored import (
    AURC,
    DebiasedECE,
    EqualMassECE,
    ExcessAURC,
    KSError,
    OutOfDistributionAUROC,
    OutOfDistributionFPR,
    SweepECE,
)
from calib_ebm.calibration.smooth import smooth_ece
from calib_ebm.errors import InputError

PURE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls/acc": accuracy.accuracy,
    "cls/mcc": accuracy.mcc,
    "cls/f1": accuracy.f1,
    "cal/ece": errors.ece_top_label,
    "cal/ece_classwise": errors.ece_classwise,
    "cal/ece_pooled": errors.ece_pooled,
    "nll": errors.nll,
    "brier": errors.brier,
}
TASK_METRICS = ("acc", "mcc", "f1")


def simulated(texts: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, classes, generator=generator)
    labels = torch.multinomial((logits / 1.5).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits.softmax(dim=1), labels


def values_of(metrics: MetricCollection) -> dict[str, float]:
    return {name: value.item() for name, value in metrics.compute().items()}


def pure_values(probs: Tensor, labels: Tensor) -> dict[str, float]:
    return {name: pure(probs, labels).item() for name, pure in PURE.items()}


@given(
    texts=st.integers(1, 60),
    classes=st.integers(2, 4),
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 59), max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_cut_into_batches_gives_the_pure_values(
    texts: int, classes: int, seed: int, cuts: list[int], dtype: torch.dtype
) -> None:
    probs, labels = simulated(texts, classes, seed)
    probs = probs.to(dtype)
    metrics = metric_collection(classes, TASK_METRICS)
    at = sorted({0, texts, *(cut for cut in cuts if cut < texts)})
    for start, end in itertools.pairwise(at):
        metrics.update(probs[start:end], labels[start:end])
    assert values_of(metrics) == pytest.approx(pure_values(probs, labels), rel=1e-12, abs=1e-12)


def test_an_ece_is_not_the_mean_over_batches() -> None:
    """The negative control of the test above: what averaging per batch, or per rank, would give."""
    probs, labels = simulated(200)
    metric = TopLabelECE()
    of_batches = [metric(p, y) for p, y in zip(probs.split(20), labels.split(20), strict=True)]
    assert torch.stack(of_batches).mean() > metric.compute() + 0.05
    assert of_batches[0] == errors.ece_top_label(probs[:20], labels[:20])


def test_the_bins_are_passed_on() -> None:
    probs, labels = simulated(300)
    metrics = metric_collection(3, bins=7)
    metrics.update(probs, labels)
    values = values_of(metrics)
    for name in ("cal/ece", "cal/ece_classwise", "cal/ece_pooled"):
        expected = PURE[name](probs, labels, 7).item()  # type: ignore[call-arg]  # ECEs take bins
        assert values[name] == pytest.approx(expected, abs=1e-12)
        assert values[name] != pytest.approx(PURE[name](probs, labels).item(), abs=1e-4)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (("acc",), ["cls/acc"]),
        (("acc", "mcc"), ["cls/acc", "cls/mcc"]),
        (("acc", "f1"), ["cls/acc", "cls/f1"]),
    ],
)
def test_the_collection_has_what_the_task_asks_for(asked: tuple[str, ...], kept: list[str]) -> None:
    metrics = metric_collection(2, asked)
    always = ["cal/ece", "cal/ece_classwise", "cal/ece_pooled", "nll", "brier"]
    assert sorted(metrics.keys()) == sorted(kept + always)


def test_a_perfect_first_batch_does_not_tie_metrics_together() -> None:
    """NLL and Brier are both 0 there; torchmetrics' own grouping would then drop one of them."""
    perfect = torch.eye(3, dtype=torch.float64)
    probs, labels = simulated(50)
    everything = torch.cat([perfect, probs.double()]), torch.cat([torch.arange(3), labels])
    for metrics in (
        metric_collection(3, TASK_METRICS),
        MetricCollection(
            {"nll": NLL(), "brier": Brier(), "cls/mcc": MCC(3), "cls/f1": F1(3)},
            compute_groups=True,
        ),
    ):
        metrics.update(perfect, torch.arange(3))
        metrics.update(probs.double(), labels)
        expected = {name: PURE[name](*everything).item() for name in metrics.keys()}  # noqa: SIM118 (no mapping)
        assert values_of(metrics) == pytest.approx(expected, abs=1e-12)


def test_memory_does_not_grow_with_the_texts() -> None:
    metrics = metric_collection(3, TASK_METRICS)

    def held() -> int:
        return sum(
            state.numel() for metric in metrics.values() for state in metric.metric_state.values()
        )

    before = held()
    for seed in range(5):
        metrics.update(*simulated(100, seed=seed))
    assert held() == before == 3 * (20 + 60 + 20) + 3 * 2 + 2 * 9


def test_reset_forgets_and_copies_are_apart() -> None:
    probs, labels = simulated(40)
    metrics = metric_collection(3)
    metrics.update(*simulated(40, seed=1))
    twin = copy.deepcopy(metrics)
    metrics.reset()
    metrics.update(probs, labels)
    assert metrics.compute()["nll"].item() == pytest.approx(errors.nll(probs, labels).item())
    assert twin.compute()["nll"] != metrics.compute()["nll"]


def test_sums_stay_in_float64() -> None:
    """A module cast to half precision casts its metrics too, unless they refuse."""
    metric = NLL().half()
    probs, labels = simulated(5000)
    for p, y in zip(probs.split(50), labels.split(50), strict=True):
        metric.update(p, y)
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(errors.nll(probs, labels).item(), rel=1e-12)


@pytest.mark.parametrize(
    "metric",
    [TopLabelECE(), ClasswiseECE(2), PooledECE(), NLL(), Brier(), Accuracy(), MCC(2), F1(2)],
)
def test_logits_are_refused_even_if_they_lie_between_zero_and_one(metric: Metric) -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(InputError, match="look like logits"):
        metric.update(torch.tensor([[3.0, -2.0], [0.5, 0.5]]), labels)
    with pytest.raises(InputError, match=r"sum to 0\.3"):
        metric.update(torch.tensor([[0.1, 0.2], [0.5, 0.5]]), labels)
    metric.update(torch.tensor([[0.9, 0.1], [0.5, 0.5]]), labels)
    assert metric.compute().isfinite()


@pytest.mark.parametrize("metric", [ClasswiseECE(3), MCC(3), F1(3)])
def test_another_number_of_classes_is_refused(metric: Metric) -> None:
    with pytest.raises(InputError, match="over 2 classes for a metric of 3"):
        metric.update(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))


def test_an_unknown_task_metric_is_refused() -> None:
    with pytest.raises(InputError, match="the metric 'pearson'") as caught:
        metric_collection(2, ("acc", "pearson"))
    assert caught.value.allowed == "acc, mcc, f1"


def test_two_processes_give_the_values_of_one(tmp_path: Path) -> None:
    probs, labels = simulated(37, seed=3)  # odd: 19 texts and 18
    torch.save({"probs": probs, "labels": labels}, tmp_path / "predictions.pt")
    script = Path(__file__).with_name("two_processes.py")
    outputs = [tmp_path / f"rank{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, str(script), str(rank), str(tmp_path / "rendezvous")),
                *(str(tmp_path / "predictions.pt"), str(outputs[rank])),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, complaint = process.communicate(timeout=3000)
            assert process.returncode == 0, complaint
    finally:
        for process in processes:
            process.kill()
    expected = pure_values(probs, labels) | further_values(probs, labels)
    for output in outputs:
        assert json.loads(output.read_text()) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    alone = probs[::2], labels[::2]
    one_rank_alone = pure_values(*alone) | further_values(*alone)
    same = {n for n in expected if abs(one_rank_alone[n] - expected[n]) <= 1e-6}
    assert not same


def further(classes: int) -> MetricCollection:
    """Those that no training run logs; as in two_processes.py."""
    return MetricCollection(
        {
            "cal/smooth_ece": SmoothECE(),
            "brier": BrierDecomposition(classes),
            "cal/ece_equal_mass": EqualMassECE(),
            "cal/classwise_mass": EqualMassECE(bins=5, kind="classwise", norm="l2"),
            "cal/ece_debiased_l2": DebiasedECE(),
            "cal/ece_sweep": SweepECE(),
            "cal/ks": KSError(),
            "selective/aurc": AURC(),
            "selective/e_aurc": ExcessAURC(),
        },
        compute_groups=False,
    )


def further_values(probs: Tensor, labels: Tensor) -> dict[str, float]:
    """What the classes that keep predictions, or many sums, should give."""
    inside = labels == 0
    double = probs.double()
    named = {
        "cal/smooth_ece": smooth_ece(probs, labels),
        "cal/ece_equal_mass": ordered.ece_equal_mass(double, labels),
        "cal/classwise_mass": errors.ece_classwise(double, labels, 5, binning="mass", norm="l2"),
        "cal/ece_debiased_l2": errors.ece_debiased_l2(double, labels),
        "cal/ece_sweep": ordered.ece_sweep(double, labels),
        "cal/ks": ordered.ks_error(double, labels),
        "selective/aurc": selective.aurc(double, labels),
        "selective/e_aurc": selective.e_aurc(double, labels),
        "auroc": ood.auroc(probs[inside, 0], probs[~inside, 0]),
        "fpr": ood.fpr_at_tpr(probs[inside, 0], probs[~inside, 0]),
    }
    named |= brier_parts(probs, labels)._asdict()
    return {name: value.item() for name, value in named.items()}


@pytest.mark.parametrize("cuts", [[97], [1, 40, 56], [10] * 9 + [7]])
def test_kept_predictions_give_the_pure_values(cuts: list[int]) -> None:
    probs, labels = simulated(97, seed=5)
    metrics = further(3)
    two_kinds = {"auroc": OutOfDistributionAUROC(), "fpr": OutOfDistributionFPR()}
    for p, y in zip(probs.split(cuts), labels.split(cuts), strict=True):
        metrics.update(p, y)
        for metric in two_kinds.values():
            metric.update(p[:, 0], y == 0)
    values = values_of(metrics) | {
        name: metric.compute().item() for name, metric in two_kinds.items()
    }
    assert values == pytest.approx(further_values(probs, labels), abs=1e-12)
    metrics.reset()
    metrics.update(probs[:9], labels[:9])
    first = further_values(probs[:9], labels[:9])
    assert values_of(metrics)["selective/aurc"] == pytest.approx(first["selective/aurc"])


def test_the_smooth_ece_and_the_brier_terms_keep_nothing_per_text() -> None:
    for metric, size in ((SmoothECE(), 1025 + 1), (BrierDecomposition(3), 5 * 3 * 20)):
        for seed in range(3):
            metric.update(*simulated(400, seed=seed))
        assert sum(state.numel() for state in metric.metric_state.values()) == size


def test_without_texts_there_is_no_value() -> None:
    for metric in (SmoothECE(), KSError(), AURC(), OutOfDistributionAUROC()):
        with pytest.warns(UserWarning, match="before the ``update`` method"):
            assert metric.compute().isnan()
    one_kind = OutOfDistributionFPR()
    one_kind.update(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    assert one_kind.compute().isnan()


def test_norms_go_through_the_classes() -> None:
    probs, labels = simulated(200)
    for norm in ("l2", "max"):
        for metric, pure in (
            (TopLabelECE(norm=norm), errors.ece_top_label),
            (ClasswiseECE(3, norm=norm), errors.ece_classwise),
            (PooledECE(norm=norm), errors.ece_pooled),
        ):
            metric.update(probs, labels)
            assert metric.compute().item() == pytest.approx(pure(probs, labels, norm=norm).item())


def test_wrong_options_and_scores_are_refused() -> None:
    with pytest.raises(InputError, match="norm is 'l3'"):
        TopLabelECE(norm="l3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind is 'top'"):
        EqualMassECE(kind="top")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="bins is 0"):
        BrierDecomposition(2, bins=0)
    with pytest.raises(InputError, match="What is inside is told by"):
        OutOfDistributionAUROC().update(torch.tensor([1.0]), torch.tensor([1]))
    with pytest.raises(InputError, match="look like logits"):
        AURC().update(torch.tensor([[2.0, -1.0]]), torch.tensor([0]))
