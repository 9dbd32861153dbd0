"""Leaves the output of a run to what its reader can act on."""

from __future__ import annotations

import logging
import os
import re
import warnings

from transformers.utils import logging as transformers_logging

SILENT_UNTIL_ERROR = ("huggingface_hub", "httpx", "timm")
WARNINGS = (
    ".*does not have many workers.*",  # features come from the cache: there is nothing for workers to do
    ".*module.s. in eval mode at the start of training.*",  # frozen encoders are meant to be
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
    ".*not supported by the model summary.*",
    ".*WeightAveraging callback, but loading a checkpoint outside.*",  # averaged weights are what it holds
    ".*You called .self.log.*have no logger configured.*",  # as it was asked for
    ".*recommended to use .self.log.*sync_dist=True.*",  # what is logged is the same on every rank already
    ".*smaller than the logging interval Trainer.log_every_n_steps.*",  # epochs are logged whatever their length
)
SRUN_UNUSED = ".*srun. command is available on your system but is not used.*"
MESSAGES = (
    r".*Tip: For seamless cloud",
    r"TPU available: False",
    r"GPU available: False, used: False",
    r"Trainer already configured with model summary callbacks",
    r"`Trainer\(val_check_interval=1.0\)` was configured so",
    r"Loading `train_dataloader` to estimate number of stepping batches",
    r"Restoring states from the checkpoint path",  # followed by what was restored
    r"Loaded model weights from the checkpoint",  # which the summary names
    r"`Trainer.fit` stopped: `max_(epochs|steps)=",  # as it was asked for
)


class Unasked(logging.Filter):
    """Drops messages that tell a reader nothing that was not asked for."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message stays."""
        return not any(re.match(pattern, record.getMessage()) for pattern in MESSAGES)


UNASKED = Unasked()


def quiet_libraries() -> None:
    """Silence what libraries print in every run."""
    for name in SILENT_UNTIL_ERROR:
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if "SLURM_JOB_ID" not in os.environ:  # on a machine where jobs are submitted; within a job, it is a mistake
        warnings.filterwarnings("ignore", message=SRUN_UNUSED)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(UNASKED)
    transformers_logging.disable_progress_bar()
