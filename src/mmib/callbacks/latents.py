"""Keeps latents of a sample of validation posts, for a report to show what training did to the latent space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from safetensors.torch import save

from mmib.base.files import atomic_file
from mmib.base.seeding import seeded
from mmib.callbacks.latent_sample import LatentSample
from mmib.modules import ExtractionModule
from mmib.schema import RunError


class LatentSpace(pl.Callback):
    """Keeps the latents of validation posts before training and with the checkpoint that validation selected.

    `latents/start.safetensors` and `latents/selected.safetensors` in the run's folder hold, of the same posts in order
    of row, their `rows` and `image_ids` (N,), `text` and `image` (N, D): the mean over a post's word pieces or regions
    of the means of their posteriors; and `labels` (N, C), which labels of the label set a post has. A run that is
    resumed keeps the first file as it is. Where no post has an image, neither is written.

    Args:
        posts: how many posts at most, spread evenly over those of the split that have an image; 0 keeps none.

    Raises:
        ConfigError: a negative number.
    """

    def __init__(self, posts: int = 400) -> None:
        self.sample = LatentSample(posts)
        self._fitted = False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        self._fitted = True

    @torch.no_grad()
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; a checkpoint, where there is one, has been restored by now."""
        if trainer.global_step > 0 or not self.sample.posts:
            return
        module, training = cast(ExtractionModule, pl_module), pl_module.training
        module.eval()
        self.sample.start(trainer)
        # The loader samples a seed for its workers.
        with seeded("latents"), trainer.precision_plugin.val_step_context():
            for batch in cast(Any, trainer).datamodule.val_dataloader(self.sample.rows):
                moved = batch.to(module.device)
                self.sample.add(moved, module.backbone(moved))
        module.train(training)
        self._write(trainer, "start")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if self._is_selected(trainer):
            self.sample.start(trainer)

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
        if self._is_selected(trainer):
            self.sample.add(batch, outputs["output"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if self._is_selected(trainer):
            self._write(trainer, "selected")

    def _is_selected(self, trainer: pl.Trainer) -> bool:
        """Whether latents are wanted of this validation; what is validated after fitting is the selected checkpoint."""
        return self.sample.posts > 0 and self._fitted and trainer.state.fn == TrainerFn.VALIDATING

    def _write(self, trainer: pl.Trainer, name: str) -> None:
        """Write what all ranks have; every rank must call this."""
        tensors = self.sample.gathered()
        if not tensors or not trainer.is_global_zero:
            return
        labels = cast(Any, trainer).datamodule.labels_of_rows("val", tensors["rows"].tolist())
        path = Path(trainer.default_root_dir) / "latents" / f"{name}.safetensors"
        try:
            with atomic_file(path) as file:
                file.write(save({**tensors, "labels": torch.from_numpy(labels)}))
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error}; make room, or set the callback's posts to 0") from error
