"""Every label loss by the name it has in `conf/loss`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calib_ebm.errors import InputError
from calib_ebm.loss.labels import (
    ConfidencePenalty,
    CrossEntropy,
    Focal,
    LabelLoss,
    LabelSmoothing,
)
from calib_ebm.loss.mixup import Mixup
from calib_ebm.loss.poscal import PosCal

LABEL_LOSSES: dict[str, type[LabelLoss]] = {
    "cross_entropy": CrossEntropy,
    "label_smoothing": LabelSmoothing,
    "focal": Focal,
    "confidence_penalty": ConfidencePenalty,
    "poscal": PosCal,
    "mixup": Mixup,
    # The terms that it adds need a model: learn/language.py.
    "joint_mlm": CrossEntropy,
}


def build_label_loss(settings: Mapping[str, Any], classes: int) -> LabelLoss:
    """The label loss that the `loss` group names.

    Args:
        settings: plain values: `name`, and what the loss of that name takes.
        classes: C.

    Raises:
        InputError: for another name, or a setting out of its range.
    """
    name = str(settings["name"])
    if name not in LABEL_LOSSES:
        raise InputError(
            f"loss.name is {name!r}.", ", ".join(LABEL_LOSSES), "Choose one: loss=cross_entropy."
        )
    kind = LABEL_LOSSES[name]
    given = {key: settings[key] for key in kind.settings}
    return kind(**({"classes": classes} if kind.needs_classes else {}), **given)
