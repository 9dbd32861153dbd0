"""Callbacks that keep weights: the last ones, those that validation selected, and averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmib.base.lightning_internals import callbacks_of, is_validated_next
from mmib.base.seeding import run_seed
from mmib.datamodules.base import PostDataModule
from mmib.runs.checkpoints import not_finite
from mmib.runs.loggers import RunLogger
from mmib.runs.resumption import LAST, PREVIOUS
from mmib.schema import CheckpointError, DivergenceError


class AveragedWeights(WeightAveraging):
    """Validates, while fitting, an exponential moving average of the weights; it is what `SelectedCheckpoint` keeps.

    Lightning's `EMAWeightAveraging` would also swap in its last average when a checkpoint is validated after fitting,
    so that the score would not be that checkpoint's, and it would average buffers: whole numbers, such as the position
    ids of a text encoder, which are in no checkpoint and would be wrong from the first update on. It also averages
    one tensor at a time and out of place, which takes a quarter of a training step on a CPU.

    Args:
        decay: what an update leaves of the average.
        update_every_n_steps: optimiser steps between two updates.
    """

    def __init__(self, decay: float = 0.99, update_every_n_steps: int = 1) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.update_every_n_steps = update_every_n_steps

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Lightning's hook."""
        return step_idx is not None and step_idx % self.update_every_n_steps == 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Keeps `checkpoints/last.ckpt`, from which a run resumes exactly where it was, and the one before it.

    Written every `every_n_steps` optimiser steps, after each epoch and each validation within one, and where SIGTERM
    ends training.

    Args:
        every_n_steps: optimiser steps between two checkpoints within an epoch; 0 writes only after epochs.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps
        self._saved_step = 0
        self._logged_rows = 0
        self._ranks = 0
        self._batches = 0
        self._order: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook."""
        batches = {"batches": self._batches, "order": self._order}
        return {"logged_rows": self._logged_rows, "ranks": self._ranks, **batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self._logged_rows, self._ranks = state_dict["logged_rows"], state_dict["ranks"]
        # Which older checkpoints do not hold.
        self._batches, self._order = state_dict.get("batches", 0), state_dict.get("order", {})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; the state of this callback has been restored by now."""
        for logger in _run_loggers(trainer):
            logger.experiment.keep(self._logged_rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; the state of the trainer has been restored by now, too.

        Raises:
            CheckpointError: the batches of an epoch, or the steps that it takes, are not those of the checkpoint.
        """
        self._saved_step = trainer.global_step
        batches = int(trainer.num_training_batches)
        if self._batches not in (0, batches):
            raise CheckpointError(
                f"this run had {self._batches} batches an epoch and would resume with {batches}: its position in the "
                "epoch and its schedules would mean nothing. Resume it with its data and batch size, or start a new run"
            )
        self._batches = batches
        self._order = self._same_order(batch_order(trainer))
        if self._ranks not in (0, trainer.world_size):
            rank_zero_warn(
                f"this run had {self._ranks} ranks until step {trainer.global_step} and resumes with "
                f"{trainer.world_size}: batches, losses and gradients are the same on any number of ranks, but noise "
                "and dropout are sampled on each, so it will not end bit for bit like a run that was never resumed"
            )
        self._ranks = trainer.world_size

    def _same_order(self, order: dict[str, Any]) -> dict[str, Any]:
        for name, value in order.items():
            if name in self._order and value != self._order[name]:
                raise CheckpointError(
                    f"this run had {name} {self._order[name]} and would resume with {value}: its position in the "
                    "epoch and its schedules would mean nothing. Resume it with what it had, or start a new run"
                )
        return order

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step
        # A run resumed from here would not validate: to Lightning the checkpoint was written after the validation.
        if due and not is_validated_next(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        # After the last batch the epoch ends, which is saved anyway.
        if fitting and trainer.global_step != self._saved_step and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lightning's hook; where SIGTERM came, Lightning has finished the step."""
        ended = isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING
        if ended and trainer.global_step != self._saved_step:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint.

        Raises:
            DivergenceError: the weights are not finite; the checkpoints before stay.
        """
        broken = not_finite(trainer.lightning_module.state_dict())
        if broken:
            raise DivergenceError(
                f"the weights are not finite after step {trainer.global_step}, {broken} and maybe others: they are not "
                "saved. Lower the learning rates (model.optimizer), then resume from a checkpoint before, or start anew"
            )
        self._saved_step = trainer.global_step
        for logger in _run_loggers(trainer):
            self._logged_rows = logger.experiment.rows()
        last = Path(trainer.default_root_dir) / "checkpoints" / LAST
        new = last.with_name(f".{LAST}.new")
        trainer.save_checkpoint(new, weights_only=False)
        if trainer.is_global_zero:
            if last.is_file():
                last.replace(last.with_name(PREVIOUS))
            new.replace(last)


class SelectedCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that keeps exactly the weights that were validated, and still knows them in a resumed run.

    Lightning's `ModelCheckpoint` selects the first score even where it is NaN. It forgets the best one when the folder
    has another name, so that the first resumed epoch would be selected whatever came before it. And where weights are
    averaged, it validates the average, but saves, in a checkpoint of weights only, those of the last step.
    """

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Lightning's hook."""
        averaging = [callback for callback in callbacks_of(trainer) if isinstance(callback, AveragedWeights)]
        if not self.save_weights_only:  # Lightning then saves both, under two keys
            averaging = []
        for callback in averaging:
            callback.on_validation_epoch_start(trainer, trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, trainer.lightning_module)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Lightning's hook: whether a score is among the best."""
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


def batch_order(trainer: pl.Trainer) -> dict[str, Any]:
    """What decides which rows the batches of a training hold, in which order, and which of them make a step."""
    order: dict[str, Any] = {"seed_everything": run_seed(), "accumulate_grad_batches": trainer.accumulate_grad_batches}
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, PostDataModule):
        order |= {"data.batch_size": data.batch_size, "data.max_tokens": data.max_tokens}
        found = data.fingerprint("train")
        order |= {"a training split with SHA-256": found["sha256"][:12], "training rows": found["rows"]}
        order |= {"data.subset_seed": found.get("subset", {}).get("seed")}
    return order


def _run_loggers(trainer: pl.Trainer) -> list[RunLogger]:
    """The logger of `metrics.csv`, on the rank that writes it."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger) and trainer.is_global_zero]
