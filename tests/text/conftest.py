"""Tiny files to read, and the shipped config nodes to read them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "task"


@pytest.fixture
def node() -> Callable[..., dict[str, Any]]:
    """`node("csv", train="a.csv")`: the plain `task` node of a shipped file, overridden."""

    def build(name: str, /, **overrides: Any) -> dict[str, Any]:
        config = OmegaConf.load(CONF / f"{name}.yaml")
        unknown = set(overrides) - set(config)
        assert not unknown, f"conf/task/{name}.yaml has no {unknown}"
        plain = OmegaConf.to_container(OmegaConf.merge(config, overrides), resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    return build


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write("dev.tsv", content)`: a file with exactly this text, or these bytes."""

    def build(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return build
