"""Private names of Lightning that the project uses still exist: a version that renames one fails here."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from mmib.base.lightning_internals import (
    accumulates_gradients,
    callbacks_of,
    end_after_batch,
    is_validated_next,
    on_sigterm,
    set_callbacks,
    started_ranks,
    starts_ranks,
)

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in ("The number of training batches", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
]


class Scale(pl.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Progress(pl.Callback):
    """Values that the trainer reports after each training batch."""

    def __init__(self) -> None:
        self.accumulates: list[bool] = []
        self.validated: list[bool] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.accumulates.append(accumulates_gradients(trainer))
        self.validated.append(is_validated_next(trainer))


def trainer_of(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )


def numbers(count: int) -> DataLoader[Any]:
    return DataLoader(torch.zeros(count, 1))  # type: ignore[arg-type]


def test_callbacks_can_be_read_and_set(tmp_path: Path) -> None:
    one, other = Progress(), Progress()
    trainer = trainer_of(tmp_path, one)
    assert one in callbacks_of(trainer)
    set_callbacks(trainer, [other])
    assert callbacks_of(trainer) == [other]
    trainer.fit(Scale(), numbers(2))
    assert not one.accumulates
    assert len(other.accumulates) == 2


def test_accumulated_steps_and_validations_are_predicted(tmp_path: Path) -> None:
    progress = Progress()
    trainer = trainer_of(tmp_path, progress, accumulate_grad_batches=2, val_check_interval=3)
    assert not is_validated_next(trainer), "nothing has begun"
    trainer.fit(Scale(), numbers(6), numbers(1))
    assert progress.accumulates == [True, False] * 3
    assert progress.validated == [False, False, True] * 2


def test_training_ends_after_the_current_batch(tmp_path: Path) -> None:
    class Ending(Progress):
        def on_train_batch_end(self, trainer: pl.Trainer, *batch: Any, **options: Any) -> None:
            super().on_train_batch_end(trainer, *batch, **options)
            end_after_batch(trainer)

    ending = Ending()
    trainer = trainer_of(tmp_path, ending)
    with pytest.raises(SIGTERMException):
        trainer.fit(Scale(), numbers(4))
    assert len(ending.accumulates) == 1
    assert trainer.global_step == 1


def test_a_custom_handler_replaces_lightnings(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Inspection(pl.Callback):
        def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
            on_sigterm(trainer, lambda number, frame: seen.append(number))

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
            if not seen:
                signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    trainer = trainer_of(tmp_path, Inspection())
    try:
        trainer.fit(Scale(), numbers(3))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert trainer.global_step == 3


def test_processes_launched_by_lightning_are_accessible(tmp_path: Path) -> None:
    alone = trainer_of(tmp_path)
    assert not starts_ranks(alone)
    assert started_ranks(alone) == []
    several = trainer_of(tmp_path, devices=2, strategy="ddp")
    # The launcher gets its processes when the trainer starts.
    several.strategy._configure_launcher()
    assert starts_ranks(several)
    assert started_ranks(several) == []
    launcher: Any = several.strategy.launcher
    launcher.procs.append("a process")
    assert started_ranks(several) == ["a process"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ModelCheckpoint, "_save_checkpoint"),
        (ExperimentWriter, "_rewrite_with_new_header"),
        (ExperimentWriter, "_check_log_dir_exists"),
        (LightningCLI, "_get"),
    ],
)
def test_overridden_and_called_methods_exist(kind: type, name: str) -> None:
    assert callable(getattr(kind, name))


def test_the_csv_logger_stores_its_writer_in_the_same_attribute(tmp_path: Path) -> None:
    assert "_experiment" in vars(CSVLogger(tmp_path))
