"""What the training of a run is resumed from, and what a message says of it. Needs no torch."""

from __future__ import annotations

from pathlib import Path

# The last checkpoint, and the one before it.
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def resumable(run: Path) -> list[Path]:
    """The checkpoints that a run can be resumed from, the newest first."""
    return [path for name in (LAST, PREVIOUS) if (path := run / "checkpoints" / name).is_file()]


def resumption(run: Path) -> str:
    """How the training of a run that ended early goes on, as the end of a message."""
    if resumable(run):
        return f"resume with mmib fit --run {run} --ckpt_path last"
    return f"start anew, as nothing was saved to resume from: mmib fit --config {run / 'config.yaml'}"
