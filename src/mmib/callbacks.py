"""Callbacks: what is logged, and what is written, while a model runs."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from mmib.modules import Scalar


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


class SelectedCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that still knows the best epoch when its run is resumed, in another folder.

    Lightning's own forgets the best score as soon as the folder is another, so that the first resumed epoch would be
    selected whatever came before it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class PredictionCollector(pl.Callback):
    """Keeps gold (not when predicting), prediction and scores of each row, by row, for files and summary."""

    def __init__(self) -> None:
        self.predictions: dict[str, dict[int, dict[str, Any]]] = {}

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over: only the last pass counts."""
        self.predictions["val"] = {}

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over: only the last pass counts."""
        self.predictions["test"] = {}

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
        self._keep("val", outputs)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's hook."""
        self._keep("test", outputs)

    def on_predict_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over: prediction reads the test rows."""
        self.predictions["test"] = {}

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's hook."""
        self._keep("test", outputs)

    def _keep(self, split: str, outputs: dict[str, Any]) -> None:
        keys = [key for key in ("gold", "predicted", "scores") if key in outputs]
        columns = (outputs[key].tolist() for key in keys)
        for row, *values in zip(outputs["rows"].tolist(), *columns, strict=True):
            self.predictions[split][row] = {"id": row, **dict(zip(keys, values, strict=True))}
