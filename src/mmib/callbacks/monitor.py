"""Callback that logs the bottleneck and the alignment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from mmib.base.distributed import global_sum, widened, world_size
from mmib.callbacks.information_plane import draw_information_plane
from mmib.callbacks.latent_sample import LatentSample
from mmib.datamodules.base import PostDataModule
from mmib.geometry import PairedLatents
from mmib.information import MODALITIES, MetricSums, information_plane, scalars
from mmib.modules import ExtractionModule, ObjectiveLogger

# Logged measures of the latent space. Gap and pair cosine are logged for all posts, as `align/gap` and `align/cosine`.
GEOMETRY = (
    *("cosine_text", "cosine_image", "effective_rank_text", "effective_rank_image"),
    *("own_image_rank", "own_image_share"),
)


class IBMonitor(ObjectiveLogger):
    """Logs the bottleneck and the alignment over all ranks, under the documented names.

    Epoch scalars are computed from sums over the whole epoch. Step scalars, with the suffix `_step`, are computed from
    the sums of a step's global batches, every `log_every_n_steps` steps of the trainer. Validation scalars have the
    prefix `val/`; validation also logs the geometry of the latent space as `val/latent/...`. After fitting, the
    information plane is written to the run's folder, with a point for each validation.

    Args:
        gradients_every: steps between logs of the gradient norm of each loss term, each of which costs a backward pass;
            0 disables them.
        histograms_every: steps between histograms of the KL by latent dimension in W&B; 0 disables them.
        latent_posts: maximum number of validation posts with an image for the geometry; 0 disables it.

    Raises:
        ConfigError: If `latent_posts` is negative.
    """

    def __init__(self, gradients_every: int = 0, histograms_every: int = 0, latent_posts: int = 1000) -> None:
        self.gradients_every = gradients_every
        self.histograms_every = histograms_every
        self._train: MetricSums | None = None
        self._validation: MetricSums | None = None
        self._plane: list[dict[str, float]] = []
        self._window: MetricSums | None = None  # sums of the optimiser step in progress
        self._logged_step = 0
        self._gradients_step = -1
        self._latents = LatentSample(latent_posts)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Log gradient norms when they are due."""
        module = cast(ExtractionModule, pl_module)
        step = trainer.global_step
        if self.gradients_every and step % self.gradients_every == 0 and step != self._gradients_step:
            self._gradients_step = step
            _log_now(trainer, {f"grad/{name}": norm for name, norm in gradient_norms(module).items()}, step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch to the sums, and log the step when it is due."""
        step = trainer.global_step
        self._train = added(self._train, outputs["sums"])
        window = added(self._window, outputs["sums"])
        self._window = window
        if step == self._logged_step:  # gradients are still being accumulated
            return
        self._window, self._logged_step = None, step
        if (every := cast(Any, trainer).log_every_n_steps) and step % every == 0:
            _log_now(trainer, {f"{name}_step": value for name, value in _named(window).items()}, step)
        if self.histograms_every and step % self.histograms_every == 0:
            self._log_histograms(trainer, window)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's scalars."""
        if self._train is None:
            return
        named = _named(self._train)
        _log_epoch(pl_module, named, logger=False)
        # Lightning logs after writing the epoch's checkpoint; a run resumed from that would lack this row.
        _log_now(trainer, {"epoch": trainer.current_epoch, **named}, step=trainer.global_step - 1)
        self._train = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the posts for the geometry."""
        if isinstance(getattr(trainer, "datamodule", None), PostDataModule):
            self._latents.start(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the batch to the sums."""
        self._validation = added(self._validation, outputs["sums"])
        if self._latents.rows:
            self._latents.add(batch, outputs["output"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the scalars of validation, and add a point to the information plane."""
        if self._validation is None:
            return
        named = {**scalars(self._validation), **self._geometry()}
        _log_epoch(pl_module, {f"val/{name}": value for name, value in named.items()})
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._plane.append({"step": trainer.global_step, **information_plane(self._validation)})
        self._validation = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the information plane."""
        if trainer.is_global_zero and self._plane:
            draw_information_plane(self._plane, Path(trainer.default_root_dir))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming in the middle of an epoch."""
        train = None if self._train is None else self._train.to_dict()
        return {"train": train, "plane": self._plane, "logged_step": self._logged_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        train = state_dict["train"]
        self._train = None if train is None else MetricSums.from_dict(train)
        self._plane = state_dict["plane"]
        self._logged_step = state_dict["logged_step"]

    def _geometry(self) -> dict[str, Tensor]:
        """Return the scalars of the latent space, equal on all ranks; every rank must call this."""
        latents = self._latents.gathered()
        if not latents:
            return {}
        text, image, image_ids = (latents[name].numpy() for name in ("text", "image", "image_ids"))
        found = PairedLatents(text, image, image_ids).geometry()
        values = {f"latent/{name}": torch.tensor(getattr(found, name)) for name in GEOMETRY}
        return {name: value for name, value in values.items() if not value.isnan()}

    def _log_histograms(self, trainer: pl.Trainer, sums: MetricSums) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb  # noqa: PLC0415 - costs a second that runs without it need not spend

                histograms: Any = {
                    f"ib/kl_{m}_by_dimension": wandb.Histogram(sums.rate(m).tolist()) for m in MODALITIES
                }
                logger.log_metrics(histograms, step=trainer.global_step)


def gradient_norms(module: ExtractionModule) -> dict[str, Tensor]:
    """Return the L2 norm of each loss term's gradient by all trainable parameters, for the global batch.

    Every rank must call this between a training step and its backward pass.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    norms = {}
    for name, term in module.loss_terms.items():
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        flat = torch.cat([widened(g).flatten() for g in gradients if g is not None])
        norms[name] = (global_sum(flat) / world_size()).norm()
    return norms


def _named(sums: MetricSums) -> dict[str, Tensor]:
    """Return the scalars of training by their documented names."""
    return {f"train/{name}" if "/" not in name else name: value for name, value in scalars(sums).items()}


def added(sums: MetricSums | None, more: MetricSums) -> MetricSums:
    """Add up two sums; return `more` if there is no first one yet."""
    return more if sums is None else sums + more


def _log_epoch(module: pl.LightningModule, named: dict[str, Tensor], logger: bool = True) -> None:
    # Equal on all ranks, so nothing has to be synchronised.
    values = {name: value.float() for name, value in named.items()}
    module.log_dict(values, on_step=False, on_epoch=True, logger=logger)


def _log_now(trainer: pl.Trainer, named: Mapping[str, Tensor | int], step: int) -> None:
    values = {name: value if isinstance(value, int) else float(value) for name, value in named.items()}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
