"""Tune the noise model on a task's texts, and nothing more; `train` then finds it.

It is kept in `cache_dir` under the digest of all that determines it. After Ctrl-C the same command
goes on where it was.

    python -m calib_ebm.tune_noise
    python -m calib_ebm.tune_noise task=sst2
    python -m calib_ebm.tune_noise task=sst2 noise.lm=/path/to/gpt2
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, say_path
from calib_ebm.usage import NOISE, NOISE_GROUPS, PLACES, TASK, Usage


def tune_noise(config: dict[str, Any]) -> None:
    """Tune, or find, the noise model; print its perplexity and, last, its folder."""
    from calib_ebm.learn.early import read_task

    task = read_task(config).task
    from calib_ebm.learn.noise_stage import only_tune

    lm = only_tune(config, task, say)
    say("noise model:")
    say_path(lm)


if __name__ == "__main__":
    settings = TASK | NOISE | {"cache_dir": PLACES["cache_dir"]}
    usage = Usage("tune_noise", "train", __doc__ or "", settings, NOISE_GROUPS)
    run_command(usage, tune_noise)
