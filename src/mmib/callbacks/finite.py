"""Callback that stops a training whose losses or gradients are no longer finite."""

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

# Maximum number of rows that a message lists.
MOST_ROWS = 32


class FiniteCheck(pl.Callback):
    """Stops training at the first infinite or NaN loss, in training or validation, or gradient.

    Steps that the gradient scaler of half precision skips are ignored until its scale falls below 1, from where values
    also overflow without scaling.
    """

    def __init__(self) -> None:
        self._rows: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: PostBatch, batch_idx: int
    ) -> None:
        """Remember the rows of the batch for messages."""
        self._rows = batch.rows.tolist()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss of a training batch.

        Raises:
            DivergenceError: If it is not finite.
        """
        terms = {name: value.detach() for name, value in cast(ExtractionModule, pl_module).loss_terms.items()}
        if not _is_finite([*terms.values(), sum(terms.values(), torch.zeros(()))]) and not _is_scaled(trainer):
            raise self._error(trainer, f"the loss of a training batch is not finite, {_described(terms)}")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check the gradients, before they are clipped.

        Raises:
            DivergenceError: If a gradient is not finite.
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
        """Check the loss of a validation batch while fitting.

        Raises:
            DivergenceError: If it is not finite.
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
    """Whether a gradient scaler skips this step and lowers its scale."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() >= 1


def _described(terms: Mapping[str, Tensor]) -> str:
    broken = {name: float(value) for name, value in terms.items() if not _is_finite([value])}
    return ", ".join(f"{name} {value}" for name, value in broken.items()) or "as its terms add up to infinity"
