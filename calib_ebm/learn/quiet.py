"""What libraries tell one another, kept from the person who waits."""

from __future__ import annotations

import logging
import warnings

from calib_ebm.energy.encoder import hush

NOT_FOR_PEOPLE = (
    # Lightning suggests worker processes for every loader; batches here cost little beside a step.
    ".*does not have many workers.*",
    # It cannot know that our batches are a function of the step.
    ".*your dataloader is not resumable.*",
    ".*LeafSpec.*is deprecated.*",
    ".*srun.*command is available.*",
    # Measurements are accumulated over all ranks by torchmetrics before they are logged.
    ".*when logging on epoch level in distributed setting.*",
)


def quieten() -> None:
    """Announcements and advice of Lightning and transformers off; warnings and errors stay.

    To be called once Lightning is imported, because it sets the level of its loggers then.
    """
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
        for below in list(logging.root.manager.loggerDict):
            if below.startswith(f"{name}."):
                logging.getLogger(below).setLevel(logging.WARNING)
    hush()
    for pattern in NOT_FOR_PEOPLE:
        warnings.filterwarnings("ignore", pattern)
