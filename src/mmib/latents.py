"""Keeps latents of some validation posts, so that a report can show what training did to the latent space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from safetensors.torch import save
from torch import Tensor

from mmib.distributed import gather_objects
from mmib.files import atomic_file
from mmib.modules import ExtractionModule
from mmib.schema import ConfigError, RunError
from mmib.seeding import seeded


class LatentSpace(pl.Callback):
    """Keeps the latents of validation posts before training and with the checkpoint that validation selected.

    `latents/start.safetensors` and `latents/selected.safetensors` in the run's folder hold, of the same posts in order
    of row, their `rows` (N,), and `text` and `image` (N, D): the mean over a post's word pieces or regions of the means
    of their posteriors, in float16. A run that is resumed keeps the first file as it is. Where no post has an image
    there is neither.

    Args:
        posts: how many posts at most, spread evenly over those of the split that have an image; 0 keeps none.

    Raises:
        ConfigError: a negative number.
    """

    def __init__(self, posts: int = 400) -> None:
        if posts < 0:
            raise ConfigError(f"posts is {posts}: latents are kept of 0 posts or more")
        self.posts = posts
        self._fitted = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; a checkpoint has been restored by now where there was one."""
        if trainer.global_step == 0:
            self._keep(trainer, pl_module, "start")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        self._fitted = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; what is validated after fitting is the selected checkpoint."""
        if self._fitted and trainer.state.fn == TrainerFn.VALIDATING:
            self._keep(trainer, pl_module, "selected")

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        own = self._encode(trainer, cast(ExtractionModule, pl_module)) if self.posts else {}
        ranks = gather_objects(own)
        if not own or not trainer.is_global_zero:
            return
        tensors = {key: torch.cat([rank[key] for rank in ranks]) for key in own}
        order = tensors["rows"].argsort()
        path = Path(trainer.default_root_dir) / "latents" / f"{name}.safetensors"
        try:
            with atomic_file(path) as file:
                file.write(save({key: tensor[order] for key, tensor in tensors.items()}))
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error}; make room, or set the callback's posts to 0") from error

    @torch.no_grad()
    def _encode(self, trainer: pl.Trainer, module: ExtractionModule) -> dict[str, Tensor]:
        """This rank's share of `rows`, `text` and `image`; every rank must call this."""
        kept: dict[str, list[Tensor]] = {}
        training = module.training
        module.eval()
        # The loader draws a seed for its workers.
        with seeded("latents"), trainer.precision_plugin.val_step_context():
            for batch in cast(Any, trainer).datamodule.val_sample_dataloader(self.posts):
                output, counted = module.backbone(batch.to(module.device)), batch.counted
                means = {"text": output.text_latents.post_mean(), "image": output.image_latents.post_mean()}
                for key, tensor in {"rows": batch.rows, **{key: mean.half() for key, mean in means.items()}}.items():
                    kept.setdefault(key, []).append(tensor.cpu()[counted])
        module.train(training)
        return {key: torch.cat(parts) for key, parts in kept.items()}
