"""Tune the noise model on a task's texts, and nothing more; `train` then finds it.

    python -m calib_ebm.tune_noise task=sst2
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say


def tune_noise(config: dict[str, Any]) -> None:
    """Tune, or find, the noise model; print its perplexity and its folder."""
    from calib_ebm.learn.noise_stage import only_tune

    lm = only_tune(config, say)
    say(f"noise model: {lm}")


if __name__ == "__main__":
    run_command("train", tune_noise)
