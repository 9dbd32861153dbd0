"""Which rows a trainer looks at: all, or those of the first batches where it takes no more of them."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl

from mmib.base.lightning_internals import overfits
from mmib.datamodules.batching import GlobalBatchSampler


def rows_looked_at(trainer: pl.Trainer, split: str, sampler: GlobalBatchSampler) -> np.ndarray:
    """(N,) whether a trainer will look at each row of a split.

    `limit_<split>_batches`, `overfit_batches` and `fast_dev_run` of a trainer limit what it looks at.

    Args:
        trainer: what runs now says whether the test rows are scored or predicted.
        split: `train`, `val` or `test`.
        sampler: of the split's batches.
    """
    batches = _batches(trainer, split, len(sampler))
    epochs = _epochs(trainer) if split == "train" else 1
    rows = len(sampler.sizes)
    if epochs is None or epochs * batches >= len(sampler):  # of many epochs hardly a row is left out
        return np.ones(rows, dtype=bool) if batches else np.zeros(rows, dtype=bool)
    looked_at = np.zeros(rows, dtype=bool)
    for epoch in range(epochs):
        for batch in sampler.global_batches(epoch)[:batches]:
            looked_at[batch] = True
    return looked_at


def _batches(trainer: pl.Trainer, split: str, batches: int) -> int:
    """How many of a split's batches the trainer takes; those of its last optimiser step are completed."""
    limits = {
        "train": trainer.limit_train_batches,
        "val": trainer.limit_val_batches,
        "test": trainer.limit_predict_batches if trainer.predicting else trainer.limit_test_batches,
    }
    limit = limits[split]
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    # A batch is weighed by the others of its optimiser step, images included.
    step = trainer.accumulate_grad_batches if split == "train" else 1
    return -(-taken // step) * step


def _epochs(trainer: pl.Trainer) -> int | None:
    """How many epochs take different batches; None where nobody knows."""
    if overfits(trainer):
        return 1
    return None if trainer.max_epochs in (None, -1) else trainer.max_epochs
