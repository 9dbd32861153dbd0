"""Suppresses library output that a user cannot act on."""

from __future__ import annotations

import logging
import os
import re
import warnings

from transformers.utils import logging as transformers_logging

SILENT_UNTIL_ERROR = ("huggingface_hub", "httpx", "timm")
WARNINGS = (
    ".*does not have many workers.*",  # features come from the cache, so that workers have nothing to do
    ".*module.s. in eval mode at the start of training.*",  # intended for frozen encoders
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
    ".*not supported by the model summary.*",
    ".*WeightAveraging callback, but loading a checkpoint outside.*",  # the checkpoint contains the averaged weights
    ".*You called .self.log.*have no logger configured.*",  # as configured
    ".*recommended to use .self.log.*sync_dist=True.*",  # logged values are equal on all ranks
    ".*smaller than the logging interval Trainer.log_every_n_steps.*",  # epochs of any length are logged
)
SRUN_UNUSED = ".*srun. command is available on your system but is not used.*"
MESSAGES = (
    r".*Tip: For seamless cloud",
    r"TPU available: False",
    r"GPU available: False, used: False",
    r"Trainer already configured with model summary callbacks",
    r"`Trainer\(val_check_interval=1.0\)` was configured so",
    r"Loading `train_dataloader` to estimate number of stepping batches",
    r"Restoring states from the checkpoint path",  # followed by a message on what was restored
    r"Loaded model weights from the checkpoint",  # named in the summary
    r"`Trainer.fit` stopped: `max_(epochs|steps)=",  # as configured
)


class Unasked(logging.Filter):
    """Drops log messages without useful information."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep a message."""
        return not any(re.match(pattern, record.getMessage()) for pattern in MESSAGES)


UNASKED = Unasked()


def quiet_libraries() -> None:
    """Silence messages that libraries print in every run."""
    for name in SILENT_UNTIL_ERROR:
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if "SLURM_JOB_ID" not in os.environ:  # outside of a job the warning is irrelevant
        warnings.filterwarnings("ignore", message=SRUN_UNUSED)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(UNASKED)
    transformers_logging.disable_progress_bar()
