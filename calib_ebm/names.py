"""Names of files that one room writes and others look for."""

from __future__ import annotations

CONFIG = "config.yaml"
RUN = "run.json"
METRICS = "metrics.json"
HISTORY = "history.csv"
ENERGIES = "energies.parquet"
NOISE_SAMPLES = "noise_samples.jsonl"
TRUTH = "truth.parquet"
REPORT = "report.html"
FACTS = "calib_ebm.json"
"""In a model's folder, what transformers does not know of: energy, calibrator."""
