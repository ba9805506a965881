"""Draw the noise that a training needs, and nothing more; `train` then finds it.

    python -m calib_ebm.draw_noise task=sst2 noise.per_text=8
"""

from __future__ import annotations

from typing import Any

from calib_ebm.command import run_command, say


def draw_noise(config: dict[str, Any]) -> None:
    """Tune the noise model if it is missing, draw both banks, show some noise, print their folders."""
    from calib_ebm.learn.noise_stage import only_draw

    for folder in only_draw(config, say):
        say(f"noise bank: {folder}")


if __name__ == "__main__":
    run_command("train", draw_noise)
