"""Lightning callbacks: what is logged, kept and written while a model runs."""

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
