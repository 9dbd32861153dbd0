"""Callbacks that end all ranks of a job together."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from mmib.base.distributed import on_any_rank
from mmib.base.lightning_internals import (
    accumulates_gradients,
    end_after_batch,
    on_sigterm,
    started_ranks,
    starts_ranks,
)
from mmib.runs.folder import started_by_first_rank
from mmib.runs.resumption import resumption
from mmib.schema import JobError

LOST_RANK_S, WATCH_S = 5.0, 1.0


class OrderlyEnd(pl.Callback):
    """Ends all ranks after the same batch, with a `SIGTERMException`, when any of them receives SIGTERM.

    Lightning's handler calls a collective wherever the signal interrupts a rank, so that ranks may wait for each other
    forever. This handler only sets a flag. It is active until the process ends, also between training and scoring. A
    validation within training is completed first.
    """

    def __init__(self) -> None:
        self._asked = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Install the signal handler."""
        on_sigterm(trainer, self._ask)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End training if any rank has received SIGTERM and the optimiser step is complete."""
        if on_any_rank(self._asked, pl_module.device) and not accumulates_gradients(trainer):
            end_after_batch(trainer)

    def _after_scored_batch(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any, **numbers: Any
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING and on_any_rank(self._asked, pl_module.device):
            raise SIGTERMException

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _after_scored_batch


class LostRank(pl.Callback):
    """Reports the rank whose death ended a job with ranks started by Lightning: the first, or one of its children.

    Lightning's first rank watches its children, and ends the job when one of them dies. With this callback the children
    also watch the first rank.
    """

    def __init__(self) -> None:
        self._first = os.getppid() if started_by_first_rank() else None
        self._over = threading.Event()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start watching the first rank, in its children."""
        self._over = threading.Event()
        if self._first is not None:
            threading.Thread(target=self._watch, args=(trainer, self._over), daemon=True).start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop watching."""
        self._over.set()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Raise a `JobError` if another rank's death has caused the exception."""
        # A broken connection is a RuntimeError, and may be noticed before the end of the other process.
        related = self._first is not None or starts_ranks(trainer)
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
        """Kill this rank when the first one has ended, as it may be blocked."""
        while not over.wait(WATCH_S):
            lost = self._lost(trainer)
            if lost is not None:
                print(f"mmib: {lost}", file=sys.stderr, flush=True)  # noqa: T201
                os.kill(os.getpid(), signal.SIGKILL)

    def _lost(self, trainer: pl.Trainer) -> str | None:
        """Return a message on a rank that has ended, or None."""
        children = enumerate(started_ranks(trainer), 1)
        ended = [f"{rank} (status {child.returncode})" for rank, child in children if child.poll()]
        if self._first not in (None, os.getppid()):
            ended = ["0"]
        if not ended:
            return None
        return (
            f"rank {ended[0]} of this job ended, so the job ends; see the output of that rank for the reason; then "
            f"{resumption(Path(trainer.default_root_dir))}"
        )
