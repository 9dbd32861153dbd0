"""Callbacks for checkpoints: the last one, those selected by validation, and averaged weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmib.base.lightning_internals import accumulates_gradients, callbacks_of, is_validated_next
from mmib.base.seeding import run_seed
from mmib.datamodules.base import PostDataModule
from mmib.runs.checkpoints import not_finite
from mmib.runs.loggers import RunLogger
from mmib.runs.resumption import LAST, PREVIOUS, resumption
from mmib.schema import CheckpointError, DivergenceError


class AveragedWeights(WeightAveraging):
    """Keeps an exponential moving average of the weights; validation uses it, and `SelectedCheckpoint` saves it.

    It differs from Lightning's `EMAWeightAveraging` in three ways. That one also swaps in its last average when a
    checkpoint is validated after fitting, so that the score is not the checkpoint's. It averages buffers, including
    integers such as the position ids of a text encoder, which are in no checkpoint and would be wrong from the first
    update on. And it averages one tensor at a time and out of place, which takes a quarter of a training step on a CPU.

    Args:
        decay: factor on the average in each update.
        update_every_n_steps: optimiser steps between updates.
    """

    def __init__(self, decay: float = 0.99, update_every_n_steps: int = 1) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.update_every_n_steps = update_every_n_steps

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether to update the average at a step."""
        return step_idx is not None and step_idx % self.update_every_n_steps == 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap in the average, while fitting."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap out the average, while fitting."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Saves `checkpoints/last.ckpt`, from which a run resumes exactly, and keeps the previous one.

    It is written every `every_n_steps` optimiser steps, after each epoch, after each validation within an epoch, and
    when SIGTERM ends training; always after a complete optimiser step, as a checkpoint holds no gradients.

    Args:
        every_n_steps: optimiser steps between checkpoints within an epoch; 0 disables these.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps
        self._saved_step = 0
        self._postponed = False
        self._logged_rows = 0
        self._ranks = 0
        self._batches = 0
        self._order: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run is checked against."""
        batches = {"batches": self._batches, "order": self._order}
        return {"logged_rows": self._logged_rows, "ranks": self._ranks, **batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        self._logged_rows, self._ranks = state_dict["logged_rows"], state_dict["ranks"]
        # Missing in older checkpoints.
        self._batches, self._order = state_dict.get("batches", 0), state_dict.get("order", {})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Truncate logs to the rows of the checkpoint; Lightning has restored this callback's state by now."""
        for logger in _run_loggers(trainer):
            logger.experiment.keep(self._logged_rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the batches are those of the checkpoint; Lightning has restored the trainer's state by now.

        Raises:
            CheckpointError: If the number of batches of an epoch, or what determines them, differs.
        """
        self._saved_step = trainer.global_step
        batches = int(trainer.num_training_batches)
        if self._batches not in (0, batches):
            raise CheckpointError(
                f"this run had {self._batches} batches per epoch and would resume with {batches}: its position in the "
                "epoch and its schedules would be wrong. Resume it with its data and batch size, or start a new run"
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
                    "epoch and its schedules would be wrong. Resume it with the old value, or start a new run"
                )
        return order

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint when it is due."""
        due = self._postponed or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0)
        # A run resumed from here would skip the validation, as Lightning assumes that it precedes the checkpoint.
        if due and not is_validated_next(trainer):
            self._save_within_epoch(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a checkpoint after a validation within an epoch, or after the optimiser step that it interrupts."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save_within_epoch(trainer)

    def _save_within_epoch(self, trainer: pl.Trainer) -> None:
        # After the last batch the epoch ends, and is saved by `on_train_epoch_end`.
        if trainer.global_step == self._saved_step or trainer.is_last_batch:
            return
        self._postponed = accumulates_gradients(trainer)
        if not self._postponed:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a checkpoint."""
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save a checkpoint if SIGTERM ends training, and report how to resume it, also after Ctrl-C.

        On SIGTERM, Lightning has finished the step by now.
        """
        if trainer.state.fn != TrainerFn.FITTING or not isinstance(exception, SIGTERMException | KeyboardInterrupt):
            return
        if isinstance(exception, SIGTERMException) and trainer.global_step != self._saved_step:
            self._save(trainer)
        if trainer.is_global_zero:
            advice = resumption(Path(trainer.default_root_dir))
            print(f"mmib: interrupted after step {trainer.global_step}; {advice}", file=sys.stderr)  # noqa: T201

    def _save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint.

        Raises:
            DivergenceError: If the weights are not finite; earlier checkpoints are kept.
        """
        broken = not_finite(trainer.lightning_module.state_dict())
        if broken:
            raise DivergenceError(
                f"the weights are not finite after step {trainer.global_step}, {broken} and maybe others: they are not "
                "saved. Lower the learning rates (model.optimizer), then resume from an older checkpoint, or restart"
            )
        self._saved_step, self._postponed = trainer.global_step, False
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
    """A `ModelCheckpoint` that saves exactly the validated weights, and remembers the best ones in a resumed run.

    Lightning's `ModelCheckpoint` selects the first score even if it is NaN. It forgets the best score if the folder is
    renamed, so that the first resumed epoch would always be selected, and keeps the path of a best checkpoint that is
    another run's. With averaged weights, its checkpoints of weights only contain those of the last step instead of the
    validated average.
    """

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Save a checkpoint, with the averaged weights swapped in."""
        averaging = [callback for callback in callbacks_of(trainer) if isinstance(callback, AveragedWeights)]
        if not self.save_weights_only:  # Lightning then saves both, under two keys
            averaging = []
        for callback in averaging:
            callback.on_validation_epoch_start(trainer, trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, trainer.lightning_module)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether a score is finite and among the best."""
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the run in this folder; a new run from another run's checkpoint selects its own."""
        before, here = Path(state_dict["dirpath"]), Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(here / Path(path).relative_to(before)) if path else path

        best = Path(state_dict["best_model_path"])
        if not best.is_relative_to(before) or not Path(moved(str(best))).is_file():
            return
        paths = {
            name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        scores = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})


def batch_order(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the settings that determine the batches of a training, their order, and their grouping into steps."""
    order: dict[str, Any] = {"seed_everything": run_seed(), "accumulate_grad_batches": trainer.accumulate_grad_batches}
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, PostDataModule):
        order |= {"data.batch_size": data.batch_size, "data.max_tokens": data.max_tokens}
        found = data.fingerprint("train")
        order |= {"a training split with SHA-256": found["sha256"][:12], "training rows": found["rows"]}
        order |= {"data.subset_seed": found.get("subset", {}).get("seed")}
        order |= {"data.holdout_seed": found.get("holdout_seed")}
    return order


def _run_loggers(trainer: pl.Trainer) -> list[RunLogger]:
    """Return the logger of `metrics.csv`, on the rank that writes it."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger) and trainer.is_global_zero]
