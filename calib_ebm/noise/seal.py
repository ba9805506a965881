"""Manifests that can tell whether they, and the files that they name, are as they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
"""The entry of a manifest that is the digest of all its others."""


def digest_of(plan: Mapping[str, Any]) -> str:
    """Digest of plain values, the same wherever and whenever it is computed."""
    text = json.dumps(plan, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its seal."""
    return {**manifest, SEAL: digest_of(manifest)}


def is_unbroken(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest that was read is the one that was sealed.

    One without a seal, as they were written before there were seals, passes.

    >>> read = json.loads(json.dumps(sealed({"count": 3})))
    >>> is_unbroken(read), is_unbroken({**read, "count": 7}), is_unbroken({"count": 7})
    (True, False, True)
    """
    return SEAL not in manifest or manifest == sealed(
        {name: value for name, value in manifest.items() if name != SEAL}
    )


def facts_of(path: Path, name: str | None = None) -> dict[str, Any]:
    """A file's name, size and digest, as manifests hold them."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": name or path.name, "bytes": path.stat().st_size, "sha256": sha256}


def facts_within(folder: Path) -> list[dict[str, Any]]:
    """Facts of all files in a folder and those below it, by their path within it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [facts_of(path, path.relative_to(folder).as_posix()) for path in files]


def changed_file(folder: Path, facts: list[dict[str, Any]]) -> str | None:
    """The first of the files that is missing, cut short or changed; None where all are whole."""
    for fact in facts:
        path = folder / fact["file"]
        if not path.is_file() or facts_of(path, fact["file"]) != fact:
            return str(fact["file"])
    return None
