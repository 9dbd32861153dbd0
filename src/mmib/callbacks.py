"""Callbacks: what is logged, and what is written, while a model runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from mmib.distributed import gather_objects, global_sum, on_any_rank, widened, world_size
from mmib.figures import draw_information_plane
from mmib.modules import ExtractionModule
from mmib.runs import RunLogger, started_by_first_rank
from mmib.schema import NO_TAG, CheckpointError, JobError
from mmib.totals import MODALITIES, Totals, add, information_plane, rate, scalars

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
LOST_RANK_S, WATCH_S = 5.0, 1.0
NO_COLUMNS = ("rows", "totals", "output")  # of what a step gives
BY_WORD = ("gold", "predicted", "confidence")  # of a record of entity recognition


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


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Keeps `checkpoints/last.ckpt`, from which a run goes on exactly where it was, and the one before it.

    Written every so many optimiser steps, after each validation and each epoch, and where SIGTERM ends training.

    Args:
        every_n_steps: optimiser steps between two checkpoints within an epoch; 0 writes only after epochs.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps
        self._saved_step = 0
        self._logged_rows = 0
        self._ranks = 0
        self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook."""
        return {"logged_rows": self._logged_rows, "ranks": self._ranks, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self._logged_rows, self._ranks = state_dict["logged_rows"], state_dict["ranks"]
        self._batches = state_dict.get("batches", 0)  # which older checkpoints do not tell

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; our state has been restored by now where there was a checkpoint."""
        for logger in _run_loggers(trainer):
            logger.experiment.keep(self._logged_rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; so has the trainer's.

        Raises:
            CheckpointError: an epoch has another number of batches than it had.
        """
        self._saved_step = trainer.global_step
        batches = int(trainer.num_training_batches)
        if self._batches not in (0, batches):
            raise CheckpointError(
                f"this run had {self._batches} batches an epoch and would go on with {batches}: its place in the epoch "
                "and its schedules mean nothing then. Go on with its own data and batch size, or start a new run"
            )
        self._batches = batches
        if self._ranks not in (0, trainer.world_size):
            rank_zero_warn(
                f"this run had {self._ranks} ranks until step {trainer.global_step} and goes on with "
                f"{trainer.world_size}: batches, losses and gradients are the same on any number of ranks, but noise "
                "and dropout are drawn for each, so it will not end bit for bit like a run that was never resumed"
            )
        self._ranks = trainer.world_size

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step
        # A run that goes on from here would not validate: Lightning takes it that the checkpoint came after that.
        if due and not _is_validated_next(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and trainer.global_step != self._saved_step:
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


class OrderlyEnd(pl.Callback):
    """Ends all ranks after the same batch when any of them gets SIGTERM, by a `SIGTERMException`.

    Lightning's own handler speaks to the other ranks from wherever the signal finds it, so that they wait for each
    other forever. Ours only takes a note, and stays until the process ends: also between training and scoring.
    A validation within training is finished first.
    """

    def __init__(self) -> None:
        self._asked = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning's hook."""
        vars(trainer)["_signal_connector"]._sigterm_notifier_fn = self._ask
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        whole_step = not trainer.fit_loop.epoch_loop._should_accumulate()
        if on_any_rank(self._asked, pl_module.device) and whole_step:
            # Lightning raises, where it has counted the batch as done.
            vars(trainer)["_signal_connector"].received_sigterm = True

    def _after_scored_batch(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any, **numbers: Any
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING and on_any_rank(self._asked, pl_module.device):
            raise SIGTERMException

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _after_scored_batch


class LostRank(pl.Callback):
    """Names the rank whose end brought down a job that Lightning started itself: the first, or one of its children.

    Lightning watches the children, and ends the job when one of them dies. Here the children watch the first.
    """

    def __init__(self) -> None:
        self._first = os.getppid() if started_by_first_rank() else None
        self._over = threading.Event()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning's hook."""
        self._over = threading.Event()
        if self._first is not None:
            threading.Thread(target=self._watch, args=(trainer, self._over), daemon=True).start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning's hook."""
        self._over.set()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lightning's hook."""
        # A broken connection is an error of this kind, and may be seen sooner than the end of the process behind it.
        related = self._first is not None or isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
        deadline = time.monotonic() + LOST_RANK_S
        while related and isinstance(exception, RuntimeError) and time.monotonic() < deadline:
            lost = self._lost(trainer)
            if lost is not None:
                self._over.set()
                if trainer.strategy.launcher is not None:
                    trainer.strategy.launcher.kill(signal.SIGKILL)
                raise JobError(lost) from exception
            time.sleep(0.1)
        self._over.set()

    def _watch(self, trainer: pl.Trainer, over: threading.Event) -> None:
        """End this rank when the first one is gone, whatever it waits for."""
        while not over.wait(WATCH_S):
            lost = self._lost(trainer)
            if lost is not None:
                print(f"mmib: {lost}", file=sys.stderr, flush=True)  # noqa: T201
                os.kill(os.getpid(), signal.SIGKILL)

    def _lost(self, trainer: pl.Trainer) -> str | None:
        """What to say of a rank that is gone, or None."""
        launcher = trainer.strategy.launcher
        children = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
        ended = [f"{rank} (status {child.returncode})" for rank, child in enumerate(children, 1) if child.poll()]
        if self._first not in (None, os.getppid()):
            ended = ["0"]
        if not ended:
            return None
        return (
            f"rank {ended[0]} of this job ended, so the job ends; what that rank printed says why. "
            f"Go on with: mmib fit --run {trainer.default_root_dir} --ckpt_path last"
        )


def _is_validated_next(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the training batch that has just ended."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _run_loggers(trainer: pl.Trainer) -> list[RunLogger]:
    """The logger of `metrics.csv`, on the rank that writes it."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger) and trainer.is_global_zero]


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
    """Keeps gold (not when predicting), prediction, scores and evidence by row, for files and summary."""

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
        columns = {key: values.tolist() for key, values in outputs.items() if key not in NO_COLUMNS}
        for row, *values in zip(outputs["rows"].tolist(), *columns.values(), strict=True):
            if row < 0:  # a filler
                continue
            record = _without_padding(dict(zip(columns, values, strict=True)))
            self.predictions[_split(trainer)][row] = {"id": row, **record}

    def gather(self) -> None:
        """Bring the predictions of all ranks together on each, in order of row; every rank must call this."""
        for split in sorted(self.predictions):
            rows = {row: record for own in gather_objects(self.predictions[split]) for row, record in own.items()}
            self.predictions[split] = dict(sorted(rows.items()))

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _keep


def _without_padding(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose labels are those of words, without labels of what is no word."""
    predicted = record["predicted"]
    if not isinstance(predicted, list):
        return record
    words = [number for number, label in enumerate(predicted) if label != NO_TAG]
    return record | {key: [record[key][number] for number in words] for key in BY_WORD if key in record}


def _split(trainer: pl.Trainer) -> str:
    """The split that a pass outside of training reads; prediction reads the test rows."""
    return "test" if trainer.testing or trainer.predicting else "val"
