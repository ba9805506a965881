"""The learned energy against -log(P_D / P_N) for noise around texts, with P_N estimated.

    python scripts/estimate_true_energy.py runs/... --prefixes 2000 --texts 200

For a finished run on the embedded task with noise=masked, where P_N is a mean over all
masked texts that can be; with noise=unconditional or labelled it is exact, and train reports it.
Takes texts x prefixes passes of the noise model. Prints one row of Markdown: the correlation, and
how far the estimate can be trusted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from calib_ebm.learn.folder import read_config
from calib_ebm.learn.measure import correlation
from calib_ebm.learn.noise_stage import noise_task, tuned_lm
from calib_ebm.learn.noise_supply import true_log_prob
from calib_ebm.learn.prepare import load_material
from calib_ebm.learn.quiet import quieten
from calib_ebm.noise.estimate import estimate_log_prob
from calib_ebm.noise.pipeline import held_out_seed, make_sampler
from calib_ebm.report.files import read_energies


def main() -> None:
    """Print the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prefixes", type=int, default=2000)
    parser.add_argument("--texts", type=int, default=200, help="of data, and as many of noise")
    given = parser.parse_args()
    quieten()
    config = read_config(given.run / "config.yaml")
    seed = int(config["seed"])
    material = load_material(config)
    language = material.task.truth
    if language is None:
        parser.error(f"P(x) is not known for the task {material.task.name}; task=embedded has it.")
    lm = tuned_lm(config, material, None, print)
    task = noise_task(material)
    around_held_out = make_sampler(config["noise"], task, lm.lm, material.test, held_out_seed(seed))
    noise = [drawn.text for drawn in around_held_out.draw(range(given.texts), 64)[0]]
    texts = [*material.test[: given.texts], *noise]
    around_train = make_sampler(config["noise"], task, lm.lm, material.train, seed)
    estimate = estimate_log_prob(around_train, texts, given.prefixes)
    true_N = estimate.log_prob_N.numpy() - true_log_prob(language, material.tokenizer, texts)
    learned = read_energies(given.run)
    learned_N = np.concatenate([learned.data_N[: given.texts], learned.noise_N[: given.texts]])
    known = np.isfinite(true_N)
    value, low, high = correlation(true_N[known], learned_N[known])
    error = np.median(estimate.error_N.numpy()[known])
    print("| run | correlation | standard error of log P_N, median | texts with both | spread |")
    print("|---|---|---|---|---|")
    print(
        f"| {given.run.name} | {value:.2f} [{low:.2f}, {high:.2f}] | {error:.2f} | "
        f"{known.sum()} of {len(known)} | {true_N[known].std():.2f} |"
    )


if __name__ == "__main__":
    main()
