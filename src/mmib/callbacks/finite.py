"""The callback that stops a training whose numbers are no longer finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from mmib.modules import ExtractionModule
from mmib.runs.resumption import resumable
from mmib.schema import DivergenceError, PostBatch

# Rows of a batch that a message names.
MOST_ROWS = 32


class FiniteCheck(pl.Callback):
    """Stops at the first loss, in training or validation, or gradient that is infinite or NaN.

    Steps that the scaler of half precision skips are left to it, until its scale has fallen below 1: what overflows
    then overflows without it, too.
    """

    def __init__(self) -> None:
        self._rows: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PostBatch, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        self._rows = batch.rows.tolist()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Lightning's hook.

        Raises:
            DivergenceError: the loss is not finite.
        """
        terms = {name: value.detach() for name, value in cast(ExtractionModule, pl_module).loss_terms.items()}
        if not _is_finite([*terms.values(), sum(terms.values(), torch.zeros(()))]) and not _is_scaled(trainer):
            raise self._error(trainer, f"the loss of a training batch is not finite, {_described(terms)}")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Lightning's hook, before gradients are clipped.

        Raises:
            DivergenceError: a gradient is not finite.
        """
        gradients = {name: weights.grad for name, weights in pl_module.named_parameters() if weights.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if not _is_finite([norm]) and not _is_scaled(trainer):
            name = next((name for name, gradient in gradients.items() if not _is_finite([gradient])), None)
            where = "their norm overflows" if name is None else f"that of {name} and maybe others"
            raise self._error(trainer, f"gradients are not finite, {where}")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: PostBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's hook.

        Raises:
            DivergenceError: the loss is not finite while a model is trained.
        """
        sums = outputs["sums"]
        if trainer.state.fn == TrainerFn.FITTING and not _is_finite([sums.scalars["loss"].value]):
            self._rows = batch.rows.tolist()
            terms = {name: term.value for name, term in sums.terms.items()}
            raise self._error(trainer, f"the loss of a validation batch is not finite, {_described(terms)}")

    def _error(self, trainer: pl.Trainer, what: str) -> DivergenceError:
        rows = ", ".join(map(str, self._rows[:MOST_ROWS])) + (", …" if len(self._rows) > MOST_ROWS else "")
        folder = Path(trainer.default_root_dir)
        saved = resumable(folder)
        remedy = f"resume with mmib fit --run {folder} --ckpt_path {saved[-1]}" if saved else "start anew"
        return DivergenceError(
            f"{what}: step {trainer.global_step}, epoch {trainer.current_epoch}, rows {rows} of the split. No weights "
            f"were saved since. Look at these rows, or lower the learning rates (model.optimizer) and {remedy}"
        )


def _is_finite(values: Iterable[Tensor]) -> bool:
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def _is_scaled(trainer: pl.Trainer) -> bool:
    """Whether half precision has a scaler that skips this step and lowers its scale."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() >= 1


def _described(terms: Mapping[str, Tensor]) -> str:
    broken = {name: float(value) for name, value in terms.items() if not _is_finite([value])}
    return ", ".join(f"{name} {value}" for name, value in broken.items()) or "as its terms add up to infinity"
