"""What holds for every test: no network, no personal cache, no window, one thread.

It is set before anything else is imported, because libraries read their environment at import, and
in the environment, so that it holds in the processes that tests start.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[1]
"""This checkout, so that processes started by tests run it, installed or not."""
_NO_NETWORK = Path(__file__).parent / "no_network"
_SCRATCH = tempfile.TemporaryDirectory(prefix="calib_ebm-tests-")  # removed when the process ends

os.environ.update(
    {
        "CALIB_EBM_CACHE": str(Path(_SCRATCH.name, "calib_ebm")),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(Path(_SCRATCH.name, "hf")),  # a model in somebody's cache decides no test
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(_NO_NETWORK), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
    }
)
runpy.run_path(str(_NO_NETWORK / "sitecustomize.py"))

import torch  # noqa: E402  (after the environment that it reads)
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

# No time bounds: the machine may be busy. Reproducible where a red run blocks somebody.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")
