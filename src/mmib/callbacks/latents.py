"""Callback that saves latents of a sample of validation posts, for the report on the latent space."""

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
    """Saves latents of validation posts before training, and with the selected checkpoint.

    The files `latents/start.safetensors` and `latents/selected.safetensors` in the run's folder contain, for the same
    posts in order of row, `rows` and `image_ids` (N,); `text` and `image` (N, D), the posteriors' means averaged over a
    post's word pieces or regions; and `labels` (N, C), the labels that each post has. A resumed run keeps the first
    file. No file is written if no post has an image.

    Args:
        posts: maximum number of posts, spread evenly over those of the split with an image; 0 saves none.

    Raises:
        ConfigError: If `posts` is negative.
    """

    def __init__(self, posts: int = 400) -> None:
        self.sample = LatentSample(posts)
        self._fitted = False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that later validations are of the selected checkpoint."""
        self._fitted = True

    @torch.no_grad()
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the latents at the start; Lightning has restored a checkpoint, if any, by now."""
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
        """Choose the posts."""
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
        """Collect the latents of a batch."""
        if self._is_selected(trainer):
            self.sample.add(batch, outputs["output"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the latents of the selected checkpoint."""
        if self._is_selected(trainer):
            self._write(trainer, "selected")

    def _is_selected(self, trainer: pl.Trainer) -> bool:
        """Whether to save latents of this validation; after fitting, the selected checkpoint is validated."""
        return self.sample.posts > 0 and self._fitted and trainer.state.fn == TrainerFn.VALIDATING

    def _write(self, trainer: pl.Trainer, name: str) -> None:
        """Write the sample of all ranks; every rank must call this."""
        tensors = self.sample.gathered()
        if not tensors or not trainer.is_global_zero:
            return
        labels = cast(Any, trainer).datamodule.labels_of_rows("val", tensors["rows"].tolist())
        path = Path(trainer.default_root_dir) / "latents" / f"{name}.safetensors"
        try:
            with atomic_file(path) as file:
                file.write(save({**tensors, "labels": torch.from_numpy(labels)}))
        except OSError as error:
            raise RunError(
                f"{path} cannot be written: {error}; free disk space, or set the callback's posts to 0"
            ) from error
