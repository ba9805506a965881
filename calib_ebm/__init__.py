"""Text classifiers whose probabilities can be trusted, made so while they are fine-tuned.

A classifier over a pretrained text encoder is trained jointly as an energy-based model: it also
learns, by noise-contrastive estimation, to tell observed texts from texts that a language model
made up. What comes out is an ordinary transformers classifier with calibrated probabilities, an
energy for each text, and a report that says how far to trust them.

The folders are the path of one sentence: text, tokens, noise, energy, loss, calibration, report.
Nothing is loaded here until it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calib_ebm.classifier import EnergyClassifier

__version__ = "0.1.0"
__all__ = ["EnergyClassifier", "__version__"]

_HOME_OF = {"EnergyClassifier": "calib_ebm.classifier"}


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use (PEP 562): `import calib_ebm` stays light."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
