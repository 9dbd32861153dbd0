"""Load checkpoints without executing code in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmib.datamodules.released import LABELS_BEFORE_0_2
from mmib.labels import LabelSet, difference
from mmib.schema import CheckpointError

CHECKPOINT_TASK_KEY = "mmib_task"
CHECKPOINT_LABELS_KEY = "mmib_labels"


def run_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint belongs to."""
    return checkpoint.resolve().parent.parent


def check_labels(checkpoint: dict[str, Any], labels: LabelSet, name: str) -> None:
    """Check that a checkpoint has the expected label set.

    Version 0.1 recorded no label set, and had a fixed one for each task.

    Raises:
        CheckpointError: the label sets differ; the message shows the difference.
    """
    recorded = checkpoint.get(CHECKPOINT_LABELS_KEY)
    if recorded is None:
        trained = LABELS_BEFORE_0_2.get(str(checkpoint.get(CHECKPOINT_TASK_KEY)), labels)
    else:
        trained = LabelSet.from_dict(recorded)
    differing = difference(trained, labels)
    if differing:
        raise CheckpointError(
            f"{name} was trained on other labels than the configuration names, {differing}: give the config.yaml that "
            "is in the run folder of the checkpoint"
        )


def open_checkpoint(path: Path, task: str, remedy: Callable[[], str] = str) -> dict[str, Any]:
    """Load a checkpoint of a task, with tensors memory-mapped from the file.

    Args:
        path: the file.
        task: the task that the checkpoint must be of.
        remedy: called if the file is damaged; returns the advice in the message.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, of another task, or has non-finite weights.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: those of a run are in RUN/checkpoints")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # The unpickler can raise any type of error on a damaged file.
    except Exception as error:
        advice = remedy() or "; copy it again, or take another"
        raise CheckpointError(f"{path} is no checkpoint, or is damaged ({type(error).__name__}){advice}") from error
    found = content.get(CHECKPOINT_TASK_KEY) if isinstance(content, dict) else None
    if found != task:
        made_by = f"the task {found!r}" if found else "something else"
        raise CheckpointError(
            f"{path} was made by {made_by}, this configuration is for {task!r}: "
            "use the config.yaml that is in the run folder of the checkpoint"
        )
    if broken := not_finite(content.get("state_dict", {})):
        raise CheckpointError(
            f"{path} holds weights that are not finite, {broken} and maybe others: its training diverged; take one "
            "that was saved before, or train anew with lower learning rates (model.optimizer)"
        )
    return dict(content)


def not_finite(weights: Mapping[str, Any]) -> str | None:
    """Return the name of the first tensor with an infinite or NaN value; None if all are finite."""
    tensors = ((name, value) for name, value in weights.items() if isinstance(value, torch.Tensor))
    return next((name for name, tensor in tensors if not tensor.isfinite().all()), None)
