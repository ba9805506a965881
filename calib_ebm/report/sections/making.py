"""How the run was made: enough to make it again, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from calib_ebm.report.blocks import (
    Block,
    Bullets,
    Code,
    Details,
    Facts,
    Paragraph,
    Section,
    Table,
    row,
)
from calib_ebm.report.files import RunFolder
from calib_ebm.report.numbers import NOTHING, seconds
from calib_ebm.report.records import RunRecord, Stage

TITLE = "How it was made"
SHORT = 12
"""Characters shown of a digest or a commit."""


def section(run: RunFolder) -> Section:
    """Command, cost, versions, digests, notes and the whole configuration."""
    record = run.run
    blocks: list[Block] = []
    if record.command:
        blocks += [Paragraph("The command:"), Code(record.command)]
    if record.notes:
        blocks += [Paragraph("Notes from the run:"), Bullets(record.notes)]
    if record.stages:
        blocks.append(_stages(record.stages))
    blocks.append(Facts(_facts(record)))
    blocks.append(Details("Versions of the libraries", _lines(record.versions)))
    if record.noise_lm:
        blocks.append(Details("The noise model", _yaml(record.noise_lm)))
    if record.bank:
        blocks.append(Details("The noise bank", _yaml(record.bank)))
    blocks.append(Details("The whole configuration", _yaml(run.config)))
    return Section("making", TITLE, tuple(blocks))


def _stages(stages: Mapping[str, Stage]) -> Table:
    rows = [
        row(
            name,
            "already there" if stage.skipped else seconds(stage.seconds),
            NOTHING if stage.skipped else _megabytes(stage.peak_memory_mb),
        )
        for name, stage in stages.items()
    ]
    total = sum(
        stage.seconds
        for stage in stages.values()
        if not stage.skipped and math.isfinite(stage.seconds)
    )
    rows.append(row("Together", seconds(total), NOTHING))
    head = ("Stage", "Time", "Peak memory")
    return Table("What each stage cost.", head, tuple(rows), narrow="fold")


def _facts(record: RunRecord) -> tuple[tuple[str, str], ...]:
    commit = record.git_commit
    digests = flat(record.data_digests)
    return (
        ("Code", _short(commit) if commit else "no git commit known"),
        ("Classes", ", ".join(record.labels)),
        *((f"Digest of {name}", digest[:SHORT]) for name, digest in digests),
    )


def _short(commit: str) -> str:
    """The commit's first characters, and whatever follows a plus: that the tree was changed."""
    digest, plus, changed = commit.partition("+")
    return f"commit {digest[:SHORT]}{plus}{changed}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested names with their values, joined by slashes.

    >>> list(flat({"train": "ab", "noise": {"bank": 1}}))
    [('train', 'ab'), ('noise/bank', '1')]
    """
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", str(value)


def _megabytes(value: float) -> str:
    return f"{value:,.0f} MB" if math.isfinite(value) else "unknown"


def _lines(pairs: Mapping[str, str]) -> str:
    lines = [f"{name} {version}" for name, version in sorted(pairs.items())]
    return "\n".join(lines) or "not recorded"


def _yaml(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100).strip()
