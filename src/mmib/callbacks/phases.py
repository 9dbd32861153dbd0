"""The callback that counts training and evaluation among the phases of a command."""

from __future__ import annotations

import pytorch_lightning as pl

from mmib.base.timing import clock

TRAINING, EVALUATION = "training", "evaluation"


class PhaseTimes(pl.Callback):
    """Counts the time of training, and that of validation and test as evaluation, also where it interrupts training."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        clock.enter(TRAINING)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        clock.leave()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        clock.enter(EVALUATION)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        clock.leave()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        clock.enter(EVALUATION)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        clock.leave()
