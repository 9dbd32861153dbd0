"""What a run shows: a bar of one line, or lines where there is no terminal, and the size of the model."""

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

# Between two lines of a log file.
LINE_S = 60.0
# What a line holds beside the bar, with loss and score, in an epoch of a thousand batches.
BESIDE_THE_BAR, WIDEST_BAR = 70, 40


class OneLine(ProgressBar):
    """What both bars are: one line in a terminal of 80 columns, with what the model logs for bars.

    Where the output is no terminal and no notebook, such as in the log of a job, there is no bar, but a line after each
    validation and epoch, and every minute in between.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lines = False
        self._written = (-1, -1)
        self._written_at = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning's hook."""
        super().setup(trainer, pl_module, stage)
        console = get_console()
        if not (console.is_terminal or console.is_jupyter):
            self._lines = trainer.is_global_zero
            self.disable()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Lightning's hook: without the number that a logger gives the run."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        super().on_train_start(trainer, pl_module)
        self._written_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if time.monotonic() - self._written_at >= LINE_S:
            self._write_line(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._written = (-1, -1)  # there is a new score
            self._write_line(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook."""
        super().on_train_epoch_end(trainer, pl_module)
        self._write_line(trainer, pl_module)

    def _write_line(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        place = trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if not self._lines or place == self._written:
            return
        self._written, self._written_at = place, time.monotonic()
        metrics = {name: float(value) for name, value in self.get_metrics(trainer, pl_module).items()}
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"epoch {place[0]}, batch {place[1]} of {self.total_train_batches}: {values}", flush=True)  # noqa: T201


class RichBar(OneLine, RichProgressBar):
    """The bar of `mmib fit`; its arguments are those of Lightning's `RichProgressBar`."""

    def __init__(self, theme: RichProgressBarTheme | None = None, **options: Any) -> None:
        super().__init__(theme=theme or RichProgressBarTheme(metrics_format=".3g"), **options)

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Lightning's hook: a bar as wide as the terminal allows, and no speed beside it."""
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
    """The same with tqdm; its arguments are those of Lightning's `TQDMProgressBar`."""

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class ModelSize(ModelSummary):
    """Says in one line how large a model is, and how much of it is trained."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *counts: Any,
        **options: Any,
    ) -> None:
        """Lightning's hook; sizes are in MB."""
        total, trained = (get_human_readable_count(count) for count in (total_parameters, trainable_parameters))
        rank_zero_info(f"model: {total} parameters ({model_size:,.0f} MB), {trained} of them trained")


def with_defaults(
    callbacks: Sequence[pl.Callback] | pl.Callback | None, progress_bar: bool | None, model_summary: bool | None
) -> list[pl.Callback]:
    """Callbacks of a configuration, with a bar and the size of the model where it names no others.

    Args:
        callbacks: those of the configuration.
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
