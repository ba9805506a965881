"""Draw the noise that a training needs, and nothing more; `train` then finds it.

The noise model is tuned before if it is missing.

    python -m calib_ebm.draw_noise
    python -m calib_ebm.draw_noise task=sst2 noise.per_text=8
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say, say_path
from calib_ebm.usage import BANK, NOISE, NOISE_GROUPS, PLACES, TASK, Usage


def draw_noise(config: dict[str, Any]) -> None:
    """Draw both banks, show some noise and print, last, their folders."""
    from calib_ebm.learn.early import read_task

    task = read_task(config).task
    from calib_ebm.learn.noise_stage import only_draw

    folders = only_draw(config, task, say)
    say("noise around training texts, and around held-out texts to measure on:")
    for folder in folders:
        say_path(folder)


if __name__ == "__main__":
    settings = TASK | NOISE | BANK | {"cache_dir": PLACES["cache_dir"]}
    usage = Usage("draw_noise", "train", __doc__ or "", settings, NOISE_GROUPS)
    run_command(usage, draw_noise)
