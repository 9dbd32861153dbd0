"""The rows that a trainer uses: all of them, or those of the first batches if it limits its batches."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl

from mmib.base.lightning_internals import overfits
from mmib.datamodules.batching import GlobalBatchSampler


def rows_looked_at(trainer: pl.Trainer, split: str, sampler: GlobalBatchSampler) -> np.ndarray:
    """Return an (N,) mask of the rows of a split that a trainer will use.

    `limit_<split>_batches`, `overfit_batches` and `fast_dev_run` of a trainer limit its batches.

    Args:
        trainer: its current stage determines whether the test rows are scored or predicted.
        split: `train`, `val` or `test`.
        sampler: samples the batches of the split.
    """
    batches = _batches(trainer, split, len(sampler))
    epochs = _epochs(trainer) if split == "train" else 1
    rows = len(sampler.sizes)
    if epochs is None or epochs * batches >= len(sampler):  # many epochs leave out hardly any row
        return np.ones(rows, dtype=bool) if batches else np.zeros(rows, dtype=bool)
    looked_at = np.zeros(rows, dtype=bool)
    for epoch in range(epochs):
        for batch in sampler.global_batches(epoch)[:batches]:
            looked_at[batch] = True
    return looked_at


def _batches(trainer: pl.Trainer, split: str, batches: int) -> int:
    """Number of a split's batches that the trainer uses, rounded up to whole optimiser steps."""
    limits = {
        "train": trainer.limit_train_batches,
        "val": trainer.limit_val_batches,
        "test": trainer.limit_predict_batches if trainer.predicting else trainer.limit_test_batches,
    }
    limit = limits[split]
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    # The weight of a batch depends on the other batches of its optimiser step, images included.
    step = trainer.accumulate_grad_batches if split == "train" else 1
    return -(-taken // step) * step


def _epochs(trainer: pl.Trainer) -> int | None:
    """Number of epochs with different batches; None if it is unknown."""
    if overfits(trainer):
        return 1
    return None if trainer.max_epochs in (None, -1) else trainer.max_epochs
