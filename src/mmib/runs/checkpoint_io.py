"""Atomic writing of checkpoints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mmib.base.files import atomic_file
from mmib.runs.resumption import resumption
from mmib.schema import CheckpointError


class WholeCheckpoints(TorchCheckpointIO):
    """A plugin that writes checkpoints atomically: a file under its final name is always complete.

    Lightning writes them to the folder for temporary files, and copies them if that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save a checkpoint (Lightning's hook).

        Raises:
            CheckpointError: the disk is full, or the folder is not writable.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_file(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint {path} cannot be written: {error}; files saved earlier are kept: free disk space, "
                f"then {resumption(Path(path).absolute().parents[1])}"
            ) from error
