"""Checkpoints record the commands that led to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mmib.callbacks.history import CommandHistory


def trains(command: str, state: dict[str, Any] | None, epoch: int, step: int) -> CommandHistory:
    history = CommandHistory(command)
    if state is not None:
        history.load_state_dict(state)
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_step=step)
    history.on_train_start(trainer, trainer)
    return history


def test_each_training_command_is_appended_to_those_of_the_checkpoint() -> None:
    first = trains("mmib fit", None, 0, 0).state_dict()
    lost = trains("mmib fit --run x", first, 1, 8)
    second = trains("mmib fit --run y", first, 1, 8)
    places = [(entry["command"], entry["epoch"], entry["step"]) for entry in second.state_dict()["commands"]]
    assert places == [("mmib fit", 0, 0), ("mmib fit --run y", 1, 8)]
    assert len(first["commands"]) == 1
    assert len(lost.commands) == 2


def test_a_command_that_does_not_train_is_not_recorded() -> None:
    history = CommandHistory("mmib fit --run x")
    history.load_state_dict(trains("mmib fit", None, 0, 0).state_dict())
    assert [entry["command"] for entry in history.commands] == ["mmib fit"]
    assert not history.took_over
