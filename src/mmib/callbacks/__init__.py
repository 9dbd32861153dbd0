"""Lightning callbacks for logging, checkpoints and output files."""

from mmib.callbacks.checkpointing import AveragedWeights, LastCheckpoint, SelectedCheckpoint
from mmib.callbacks.latents import LatentSpace
from mmib.callbacks.monitor import IBMonitor
from mmib.callbacks.progress import ModelSize, RichBar, TQDMBar

__all__ = [
    "AveragedWeights",
    "IBMonitor",
    "LastCheckpoint",
    "LatentSpace",
    "ModelSize",
    "RichBar",
    "SelectedCheckpoint",
    "TQDMBar",
]
