"""Callback that times training and evaluation as phases of a command."""

from __future__ import annotations

import pytorch_lightning as pl

from mmib.base.timing import clock

TRAINING, EVALUATION = "training", "evaluation"


class PhaseTimes(pl.Callback):
    """Times training and evaluation (validation and test); validation within training counts as evaluation."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Enter the training phase."""
        clock.enter(TRAINING)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the training phase."""
        clock.leave()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Enter the evaluation phase."""
        clock.enter(EVALUATION)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the evaluation phase."""
        clock.leave()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Enter the evaluation phase."""
        clock.enter(EVALUATION)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the evaluation phase."""
        clock.leave()
