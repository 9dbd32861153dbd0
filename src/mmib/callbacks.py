"""Callbacks: what is logged, and what is written, while a model runs."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

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


class PredictionCollector(pl.Callback):
    """Keeps gold, prediction and scores of each evaluated row, by row, for the files that `report` writes."""

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

    def _keep(self, split: str, outputs: dict[str, Any]) -> None:
        columns = (outputs[key].tolist() for key in ("rows", "gold", "predicted", "scores"))
        for row, gold, predicted, scores in zip(*columns, strict=True):
            self.predictions[split][row] = {"id": row, "gold": gold, "predicted": predicted, "scores": scores}
