"""The shipped settings, shrunk until a whole run takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from calib_ebm.config_path import conf_dir
from calib_ebm.settings import noise_default

TINY = (
    "task.train_size=96",
    "task.dev_size=61",
    "encoder.small.layers=1",
    "encoder.small.width=16",
    "encoder.small.heads=2",
    "noise.small.layers=1",
    "noise.small.width=16",
    "noise.small.heads=2",
    "noise.tune.max_steps=6",
    "trainer=cpu",
    "trainer.max_steps=12",
    "trainer.measurements=3",
    "trainer.log_every=1",
    "optim.batch_size=16",
)

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Compose `train` from the real files with overrides; folders lie below tmp_path."""
    OmegaConf.register_new_resolver("noise_default", noise_default, replace=True)

    def build(*overrides: str, run: str = "run") -> dict[str, Any]:
        places = (f"run_dir={tmp_path / run}", f"cache_dir={tmp_path / 'cache'}")
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("train", overrides=[*TINY, *places, *overrides])
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    return build


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """The overrides that shrink a run."""
    return TINY
