"""The callback that logs the bottleneck and the alignment."""

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
from mmib.information import MODALITIES, Totals, add, information_plane, rate, scalars
from mmib.modules import ExtractionModule


class IBMonitor(pl.Callback):
    """Shows the bottleneck and the alignment over all ranks, under the names of the documentation.

    An epoch's scalars come from sums over the whole epoch, a step's (with `_step` behind the name) from those of its
    global batch, every `log_every_n_steps` steps of the trainer; validation ones carry the prefix `val/`. At the end
    of fitting the information plane is written into the run's folder, a point for each validation.

    Args:
        gradients_every: log the gradient norm of each loss term every so many steps; each time costs four backward
            passes. 0 never does.
        histograms_every: log histograms of the KL by latent dimension to W&B every so many steps; 0 never does.
    """

    def __init__(self, gradients_every: int = 0, histograms_every: int = 0) -> None:
        self.gradients_every = gradients_every
        self.histograms_every = histograms_every
        self._train: Totals = {}
        self._validation: Totals = {}
        self._plane: list[dict[str, float]] = []
        self._window: Totals = {}  # of the optimiser step that is being accumulated
        self._logged_step = 0
        self._gradients_step = -1

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Lightning's hook."""
        module = cast(ExtractionModule, pl_module)
        step = trainer.global_step
        if self.gradients_every and step % self.gradients_every == 0 and step != self._gradients_step:
            self._gradients_step = step
            _log_now(trainer, {f"grad/{name}": norm for name, norm in gradient_norms(module).items()}, step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        totals, step = outputs["totals"], trainer.global_step
        self._train = add(self._train, totals)
        self._window = add(self._window, totals)
        if step == self._logged_step:  # gradients are still being accumulated
            return
        totals, self._window, self._logged_step = self._window, {}, step
        if step % cast(Any, trainer).log_every_n_steps == 0:
            _log_now(trainer, {f"{name}_step": value for name, value in _named(totals).items()}, step)
        if self.histograms_every and step % self.histograms_every == 0:
            self._log_histograms(trainer, totals)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        named = _named(self._train)
        _log_epoch(pl_module, named, logger=False)
        # Lightning would log after the epoch's checkpoint was written, and a run resumed from that would lack this row.
        _log_now(trainer, {"epoch": trainer.current_epoch, **named}, step=trainer.global_step - 1)
        self._train = {}

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
        self._validation = add(self._validation, outputs["totals"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        _log_epoch(pl_module, {f"val/{name}": value for name, value in scalars(self._validation).items()})
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._plane.append({"step": trainer.global_step, **information_plane(self._validation)})
        self._validation = {}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if trainer.is_global_zero and self._plane:
            draw_information_plane(self._plane, Path(trainer.default_root_dir))

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook: what a run needs to go on in the middle of an epoch."""
        return {"train": self._train, "plane": self._plane, "logged_step": self._logged_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self._train, self._plane = state_dict["train"], state_dict["plane"]
        self._logged_step = state_dict["logged_step"]

    def _log_histograms(self, trainer: pl.Trainer, totals: Totals) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb  # noqa: PLC0415 - costs a second that runs without it need not spend

                histograms: Any = {
                    f"ib/kl_{m}_by_dimension": wandb.Histogram(rate(totals, m).tolist()) for m in MODALITIES
                }
                logger.log_metrics(histograms, step=trainer.global_step)


def gradient_norms(module: ExtractionModule) -> dict[str, Tensor]:
    """L2 norm over all trainable parameters of each loss term's gradient, of the global batch.

    Every rank must call this, between a training step and its backward pass.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    norms = {}
    for name, term in module.loss_terms.items():
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        flat = torch.cat([widened(g).flatten() for g in gradients if g is not None])
        norms[name] = (global_sum(flat) / world_size()).norm()
    return norms


def _named(totals: Totals) -> dict[str, Tensor]:
    """The scalars of training under the names of the documentation."""
    return {f"train/{name}" if "/" not in name else name: value for name, value in scalars(totals).items()}


def _log_epoch(module: pl.LightningModule, named: dict[str, Tensor], logger: bool = True) -> None:
    # The same on every rank: nothing is left to synchronise.
    values = {name: value.float() for name, value in named.items()}
    module.log_dict(values, on_step=False, on_epoch=True, logger=logger)


def _log_now(trainer: pl.Trainer, named: Mapping[str, Tensor | int], step: int) -> None:
    values = {name: value if isinstance(value, int) else float(value) for name, value in named.items()}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
