"""Callbacks: what is logged, and what is written, while a model runs."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from mmib.modules import Scalar
from mmib.schema import NO_TAG


class IBMonitor(pl.Callback):
    """Logs the loss terms, the bottleneck's KL and the alignment's bounds, under the names of the documentation.

    Training scalars are epoch means; validation ones carry the prefix `val/`. Each is weighted by
    what it is a mean of: posts, valid tokens or regions, anchors.
    """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        for name, scalar in outputs["scalars"].items():
            full = f"train/{name}" if "/" not in name else name
            self._log(pl_module, full, scalar)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's hook."""
        for name, scalar in outputs["scalars"].items():
            self._log(pl_module, f"val/{name}", scalar)

    def _log(self, module: pl.LightningModule, name: str, scalar: Scalar) -> None:
        weight = int(scalar.weight)
        if weight:
            module.log(name, scalar.value, on_step=False, on_epoch=True, batch_size=weight, sync_dist=True)


class AveragedWeights(EMAWeightAveraging):
    """Validates, while fitting, an exponential moving average of the weights; it is what `SelectedCheckpoint` keeps.

    Lightning's own would also swap its last average in when a checkpoint is validated after fitting, so that the
    score would not be that checkpoint's, and it would average buffers: rounded averages of whole numbers, such as the
    position ids of a text encoder, which stand in no checkpoint and would be wrong from the first update on.

    Args:
        decay: what an update leaves of the average.
        update_every_n_steps: optimiser steps between two updates.
    """

    def __init__(self, decay: float = 0.99, update_every_n_steps: int = 1) -> None:
        super().__init__(use_buffers=False, decay=decay, update_every_n_steps=update_every_n_steps)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)


class SelectedCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that keeps exactly the weights that were validated, and still knows them in a resumed run.

    Lightning's own forgets the best score as soon as the folder is another, so that the first resumed epoch would be
    selected whatever came before it. And where weights are averaged, it validates the average, but a checkpoint of
    weights only gets those of the last step.
    """

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Lightning's hook."""
        callbacks: list[pl.Callback] = vars(trainer)["callbacks"]
        averaging = [callback for callback in callbacks if isinstance(callback, AveragedWeights)]
        if not self.save_weights_only:  # Lightning saves both then, each under its own key
            averaging = []
        for callback in averaging:
            callback.on_validation_epoch_start(trainer, trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, trainer.lightning_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class PredictionCollector(pl.Callback):
    """Keeps gold (not when predicting), prediction and what goes with it, by row, for files and summary."""

    def __init__(self) -> None:
        self.predictions: dict[str, dict[int, dict[str, Any]]] = {}

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over: of several passes only the last counts."""
        self.predictions[_split(trainer)] = {}

    def _keep(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        columns = {key: values.tolist() for key, values in outputs.items() if key not in ("rows", "scalars")}
        for row, *values in zip(outputs["rows"].tolist(), *columns.values(), strict=True):
            record = _without_padding(dict(zip(columns, values, strict=True)))
            self.predictions[_split(trainer)][row] = {"id": row, **record}

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _keep


def _without_padding(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose values speak of words, without those that are no words."""
    predicted = record["predicted"]
    if not isinstance(predicted, list):
        return record
    words = [number for number, label in enumerate(predicted) if label != NO_TAG]
    return {key: [values[number] for number in words] for key, values in record.items()}


def _split(trainer: pl.Trainer) -> str:
    """The split that a pass outside of training reads; prediction reads the test rows."""
    return "test" if trainer.testing or trainer.predicting else "val"
