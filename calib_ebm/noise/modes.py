"""What the noise model is given, and what it writes: one small class a mode.

An autoregressive noise model reads `prefix`, then START, then writes `target`, END included; its
loss counts the target only, and in mode `infill` only what stands in the gaps. `MlmFill` is the
exception: a masked LM fills the masked slots in place.  METHOD 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from calib_ebm.errors import InputError
from calib_ebm.noise.masking import before_gaps, check_mask_rate, collapse, draw_mask
from calib_ebm.noise.vocabulary import LmText, Symbols


class Lesson(NamedTuple):
    """What a noise model learns from one text."""

    prefix: list[int]
    target: list[int]
    asked: list[bool]
    """Of each symbol of the target, whether it is the model's to write."""


@dataclass(frozen=True)
class Mode:
    """What modes have in common.

    Attributes:
        name: as in `noise=`.
        uses_source: whether a noise text is drawn around what is left of a real one.
        labelled: whether the label is drawn first, and kept with the noise.
        needs_pairs: whether it makes sense for pairs of texts only.
        fills_in: whether a masked LM fills slots, instead of an autoregressive LM writing.
        keeps_visible: whether an autoregressive LM writes only into the gaps of its prefix.
    """

    name: ClassVar[str]
    uses_source: ClassVar[bool] = True
    labelled: ClassVar[bool] = False
    needs_pairs: ClassVar[bool] = False
    fills_in: ClassVar[bool] = False
    keeps_visible: ClassVar[bool] = False

    def prefix(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> list[int]:
        """What is left of the text for the noise model to read."""
        raise NotImplementedError

    def target(self, text: LmText, symbols: Symbols) -> list[int]:
        """What the noise model learns to write: the text, after its label if the mode has one."""
        label = [symbols.labels[text.label]] if self.labelled else []
        rest = [] if text.ids_b is None else [symbols.pair, *text.ids_b]
        return [*label, *text.ids_a, *rest, symbols.end]

    def lesson(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> Lesson:
        """Prefix and target of a text, with what the loss counts."""
        target = self.target(text, symbols)
        return Lesson(self.prefix(text, symbols, rng), target, [True] * len(target))

    def to_plain(self) -> dict[str, Any]:
        """Name and settings, for manifests and digests."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Masked(Mode):
    """P_N(x | m(x)): each token masked with probability `mask_rate`, runs collapsed."""

    name: ClassVar[str] = "masked"
    mask_rate: float = 0.4

    def __post_init__(self) -> None:
        check_mask_rate(self.mask_rate)

    def prefix(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> list[int]:
        """The text with masked runs."""
        a, b = (
            collapse(ids, draw_mask(len(ids), self.mask_rate, rng), symbols.mask)
            for ids in (text.ids_a, text.ids_b or [])
        )
        return a if text.ids_b is None else [*a, symbols.pair, *b]


@dataclass(frozen=True)
class Infill(Masked):
    """P_N(x | m(x)) of a model that writes into the gaps only: what is visible stays.

    Of the text it writes, the visible symbols are given to it and not drawn; in a gap it writes one
    symbol or more, and MASK to close it. So noise is near its source however short the tuning was:
    a model that writes the whole text anew must first learn to copy, which takes a small one longer
    than all else (conf/experiment/README.md). The gaps are those of Donahue et al., ACL 2020,
    with the visible text before each in its place.

    Attributes:
        context: how many visible symbols before a gap are read once more as it is written, behind
            the prefix; None: all of them. 0 is Donahue's, where the model must count gaps.
    """

    name: ClassVar[str] = "infill"
    keeps_visible: ClassVar[bool] = True
    context: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.context, int) and not isinstance(self.context, bool)
        if self.context is not None and (not whole or self.context < 0):
            raise InputError(
                f"noise.context is {self.context!r}.",
                "a whole number from 0, or null for all that is visible",
                "Leave it out.",
            )

    def prefix(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> list[int]:
        """The text with masked runs."""
        return self.lesson(text, symbols, rng).prefix

    def lesson(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> Lesson:
        """The text with each gap closed by MASK; the loss counts what stands in gaps."""
        ids, masked = list(text.ids_a), self._masked(text.ids_a, symbols, rng)
        if text.ids_b is not None:
            ids += [symbols.pair, *text.ids_b]
            masked += [False, *self._masked(text.ids_b, symbols, rng)]
        target, asked = [], []
        near = before_gaps(masked, self.context)
        for token, in_gap, again, goes_on in zip(
            ids, masked, near, [*masked[1:], False], strict=True
        ):
            if in_gap or again:
                target.append(token)
                asked.append(in_gap)
            if in_gap and not goes_on:
                target.append(symbols.mask)
                asked.append(True)
        prefix = collapse(ids, masked, symbols.mask)
        return Lesson(prefix, [*target, symbols.end], [*asked, False])

    def _masked(self, ids: Sequence[int], symbols: Symbols, rng: np.random.Generator) -> list[bool]:
        """Which tokens are masked; always those that the noise model does not know."""
        drawn = draw_mask(len(ids), self.mask_rate, rng)
        return [bool(m) or token == symbols.unknown for m, token in zip(drawn, ids, strict=True)]


@dataclass(frozen=True)
class Unconditional(Mode):
    """P_N(x): nothing is given, so the probability of a noise text is known exactly."""

    name: ClassVar[str] = "unconditional"
    uses_source: ClassVar[bool] = False

    def prefix(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> list[int]:
        """Nothing."""
        return []


@dataclass(frozen=True)
class Labelled(Unconditional):
    """P_N(y) P_N(x | y): the label symbol is drawn first, then the text; the loss counts both."""

    name: ClassVar[str] = "labelled"
    labelled: ClassVar[bool] = True


@dataclass(frozen=True)
class Half(Mode):
    """Pairs only: one whole half, chosen at random, is masked."""

    name: ClassVar[str] = "half"
    needs_pairs: ClassVar[bool] = True

    def prefix(self, text: LmText, symbols: Symbols, rng: np.random.Generator) -> list[int]:
        """The pair with one half masked."""
        assert text.ids_b is not None, "checked when the noise was planned"
        if rng.random() < 0.5:
            return [symbols.mask, symbols.pair, *text.ids_b]
        return [*text.ids_a, symbols.pair, symbols.mask]


@dataclass(frozen=True)
class MlmFill(Mode):
    """A masked LM fills each masked slot, all in parallel: noise of the source's very length."""

    name: ClassVar[str] = "mlm"
    fills_in: ClassVar[bool] = True
    mask_rate: float = 0.4

    def __post_init__(self) -> None:
        check_mask_rate(self.mask_rate)

    def slots(self, text: LmText, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens of each text are masked."""
        a, b = (draw_mask(len(ids), self.mask_rate, rng) for ids in (text.ids_a, text.ids_b or []))
        return a, b


def fit_text(text: LmText, budget: int) -> LmText:
    """The text cut to `budget` tokens, from the end of the longer half of a pair."""
    if text.ids_b is None:
        return text._replace(ids_a=text.ids_a[:budget])
    keep_a, keep_b = len(text.ids_a), len(text.ids_b)
    excess = max(0, keep_a + keep_b - budget)
    alone = min(excess, abs(keep_a - keep_b))
    from_a = (excess - alone) // 2 + (alone if keep_a > keep_b else 0)
    return text._replace(
        ids_a=text.ids_a[: keep_a - from_a], ids_b=text.ids_b[: keep_b - (excess - from_a)]
    )


@dataclass(frozen=True)
class Lengths:
    """How much the noise model reads and writes.

    Args:
        prefix: symbols of what it is given.
        target: symbols of what it writes, END included.
    """

    prefix: int = 128
    target: int = 128

    def budget(self, pairs: bool, mode: Mode) -> int:
        """Content tokens that a text may have."""
        written = self.target - 1 - mode.labelled
        if mode.keeps_visible:
            # Every other token may be a gap of its own, with a symbol to close it.
            written = 2 * written // 3
        return min(self.prefix, written) - pairs

    @property
    def total(self) -> int:
        """Symbols of both, and START."""
        return self.prefix + 1 + self.target


MODES: dict[str, type[Mode]] = {
    m.name: m for m in (Masked, Infill, Unconditional, Labelled, Half, MlmFill)
}
"""Every mode by its name."""


def build_mode(config: Mapping[str, Any]) -> Mode:
    """The mode that `config["mode"]` names, with the settings that it has.

    Raises:
        InputError: for another name, or a setting that cannot be.
    """
    name = config["mode"]
    if name not in MODES:
        raise InputError(f"noise.mode is {name!r}.", ", ".join(MODES), "Choose one: noise=masked.")
    kind = MODES[name]
    return kind(**{field.name: config[field.name] for field in fields(kind)})


def check_texts(mode: Mode, pairs: bool, task: str) -> None:
    """Refuse a mode that the task's texts do not suit.

    Raises:
        InputError: for mode `half` on a task of single texts.
    """
    if mode.needs_pairs and not pairs:
        raise InputError(
            f"noise={mode.name} masks one half of a pair, and the task {task} has single texts.",
            "tasks of pairs: mrpc, rte, wnli, qnli, qqp, mnli, or one's own with task.text_pair",
            "Choose noise=masked.",
        )
