"""The callback that remembers which commands have trained a run."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class CommandHistory(pl.Callback):
    """Keeps each command that trained a run, and from where on, in the checkpoints that came of it.

    Args:
        command: the command line of this process.

    Attributes:
        commands: `command`, `started` (UTC), and `epoch` and `step` (of the optimiser) at which it took over.
        took_over: whether this one trains.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.commands: list[dict[str, Any]] = []
        self.took_over = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook; the state of the trainer has been restored by now."""
        self.took_over = True
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self.commands.append({"command": self.command, "started": started, **place})

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook."""
        return {"commands": self.commands}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self.commands = list(state_dict["commands"])
