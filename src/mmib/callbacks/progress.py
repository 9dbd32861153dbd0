"""Progress output of a run: a one-line bar, or log lines without a terminal, and the size of the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary, ProgressBar, RichProgressBar, TQDMProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import (
    BatchesProcessedColumn,
    CustomBarColumn,
    CustomTimeColumn,
    RichProgressBarTheme,
)
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.model_summary.model_summary import get_human_readable_count
from rich import get_console
from rich.progress import TextColumn

# Seconds between two log lines.
LINE_S = 60.0
# Columns for loss, score etc. beside the bar, in an epoch of a thousand batches; maximum width of the bar.
BESIDE_THE_BAR, WIDEST_BAR = 70, 40


class OneLine(ProgressBar):
    """Base of both bars: one line in a terminal of 80 columns, with the values that the model logs for progress bars.

    If the output is neither a terminal nor a notebook, such as the log file of a job, it prints a line after each
    validation and epoch, and every minute in between, instead of a bar.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lines = False
        self._written = (-1, -1)
        self._written_at = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Disable the bar unless the output is a terminal or a notebook."""
        super().setup(trainer, pl_module, stage)
        console = get_console()
        if not (console.is_terminal or console.is_jupyter):
            self._lines = trainer.is_global_zero
            self.disable()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the values beside the bar, without the logger's version number."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the timer of log lines."""
        super().on_train_start(trainer, pl_module)
        self._written_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line if it is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if time.monotonic() - self._written_at >= LINE_S:
            self._write_line(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line with the new score."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._written = (-1, -1)  # there is a new score
            self._write_line(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line."""
        super().on_train_epoch_end(trainer, pl_module)
        self._write_line(trainer, pl_module)

    def _write_line(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        place = trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if not self._lines or place == self._written:
            return
        self._written, self._written_at = place, time.monotonic()
        metrics = {name: float(value) for name, value in self.get_metrics(trainer, pl_module).items()}
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"epoch {place[0]}, batch {place[1]} of {_batches(trainer, place[1])}: {values}", flush=True)  # noqa: T201


def _batches(trainer: pl.Trainer, done: int) -> int | float:
    """Number of batches of the current epoch; `max_steps` may end it early.

    Lightning's `total_train_batches` subtracts the steps done so far, so it is right only when an epoch starts.
    """
    if trainer.max_steps < 0:
        return trainer.num_training_batches
    window = trainer.accumulate_grad_batches
    left = (trainer.max_steps - trainer.global_step) * window
    return min(trainer.num_training_batches, done - done % window + left)


class RichBar(OneLine, RichProgressBar):
    """The bar of `mmib fit`; its arguments are those of Lightning's `RichProgressBar`."""

    def __init__(self, theme: RichProgressBarTheme | None = None, **options: Any) -> None:
        super().__init__(theme=theme or RichProgressBarTheme(metrics_format=".3g"), **options)

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Return the columns: a bar as wide as the terminal allows, without the speed."""
        width = min(WIDEST_BAR, max(4, get_console().width - BESIDE_THE_BAR))
        bar = CustomBarColumn(
            bar_width=width,
            complete_style=self.theme.progress_bar,
            finished_style=self.theme.progress_bar_finished,
            pulse_style=self.theme.progress_bar_pulse,
        )
        batches = BatchesProcessedColumn(style=self.theme.batch_progress)
        return [TextColumn("{task.description}"), bar, batches, CustomTimeColumn(style=self.theme.time)]


class TQDMBar(OneLine, TQDMProgressBar):
    """The bar of `mmib fit` with tqdm; its arguments are those of Lightning's `TQDMProgressBar`."""

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class ModelSize(ModelSummary):
    """Prints the number of parameters in total and trained, in one line."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *counts: Any,
        **options: Any,
    ) -> None:
        """Print the line; `model_size` is in MB."""
        total, trained = (get_human_readable_count(count) for count in (total_parameters, trainable_parameters))
        rank_zero_info(f"model: {total} parameters ({model_size:,.0f} MB), {trained} of them trained")


def with_defaults(
    callbacks: Sequence[pl.Callback] | pl.Callback | None, progress_bar: bool | None, model_summary: bool | None
) -> list[pl.Callback]:
    """Return the callbacks of a configuration, with default ones for progress bar and model size added.

    Args:
        callbacks: the callbacks of the configuration.
        progress_bar: the trainer's `enable_progress_bar`.
        model_summary: the trainer's `enable_model_summary`.
    """
    named = [callbacks] if isinstance(callbacks, pl.Callback) else callbacks or []
    added: list[pl.Callback] = []
    if progress_bar is not False and not any(isinstance(callback, ProgressBar) for callback in named):
        added.append(RichBar())
    if model_summary is not False and not any(isinstance(callback, ModelSummary) for callback in named):
        added.append(ModelSize())
    return [*named, *added]
