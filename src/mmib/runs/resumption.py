"""Checkpoints to resume a run from, and the advice on resuming in messages. Does not import torch."""

from __future__ import annotations

from pathlib import Path

# The last checkpoint and the one before.
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def resumable(run: Path) -> list[Path]:
    """Return the checkpoints that a run can be resumed from, newest first."""
    return [path for name in (LAST, PREVIOUS) if (path := run / "checkpoints" / name).is_file()]


def resumption(run: Path) -> str:
    """Return advice on how to continue an unfinished run, as the end of a message."""
    if resumable(run):
        return f"resume with mmib fit --run {run} --ckpt_path last"
    return f"start again, as there is no checkpoint to resume from: mmib fit --config {run / 'config.yaml'}"
