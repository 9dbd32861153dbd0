"""Access to Lightning's private or undeclared attributes, which may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from subprocess import Popen
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return all callbacks of a trainer, in the order in which they are called."""
    callbacks: list[pl.Callback] = vars(trainer)["callbacks"]
    return callbacks


def set_callbacks(trainer: pl.Trainer, callbacks: Sequence[pl.Callback]) -> None:
    """Replace the callbacks of a trainer."""
    vars(trainer)["callbacks"] = list(callbacks)


def overfits(trainer: pl.Trainer) -> bool:
    """Whether a trainer uses the same batches in every epoch (`overfit_batches`)."""
    return bool(vars(trainer)["overfit_batches"])


def on_sigterm(trainer: pl.Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
    """Replace Lightning's SIGTERM handler, which the trainer installs when it starts."""
    _signals(trainer)._sigterm_notifier_fn = handler


def end_after_batch(trainer: pl.Trainer) -> None:
    """Make training end with a `SIGTERMException` as soon as the current batch is complete."""
    _signals(trainer).received_sigterm = True


def accumulates_gradients(trainer: pl.Trainer) -> bool:
    """Whether the last training batch only accumulated gradients, without an optimiser step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_validated_next(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the last training batch."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def starts_ranks(trainer: pl.Trainer) -> bool:
    """Whether the trainer starts the other ranks as processes that run the same command."""
    return isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)


def forks_ranks(trainer: pl.Trainer) -> bool:
    """Whether the trainer starts its ranks by multiprocessing from this process."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def started_ranks(trainer: pl.Trainer) -> list[Popen[bytes]]:
    """Return the processes of the ranks, from the second on, that this one has started."""
    launcher = trainer.strategy.launcher
    return list(launcher.procs) if isinstance(launcher, _SubprocessScriptLauncher) else []


def _signals(trainer: pl.Trainer) -> Any:
    return vars(trainer)["_signal_connector"]
