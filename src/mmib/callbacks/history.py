"""Callback that records the commands that have trained a run."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class CommandHistory(pl.Callback):
    """Saves in checkpoints the commands that trained a run, and the step from which each of them trained.

    Args:
        command: the command line of this process.

    Attributes:
        commands: `command`, `started` (UTC), and first `epoch` and optimiser `step` of each.
        took_over: whether this command trains.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.commands: list[dict[str, Any]] = []
        self.took_over = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record this command; Lightning has restored the trainer's state by now."""
        self.took_over = True
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self.commands.append({"command": self.command, "started": started, **place})

    def state_dict(self) -> dict[str, Any]:
        """Return the commands."""
        return {"commands": self.commands}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the commands."""
        self.commands = list(state_dict["commands"])
