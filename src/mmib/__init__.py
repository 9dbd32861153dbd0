"""Multimodal entity and relation extraction from social media posts with a variational information bottleneck."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmib.datamodules.mnre import MNREDataModule
    from mmib.datamodules.twitter import TwitterDataModule
    from mmib.extract.extractor import Extractor
    from mmib.labels import LabelSet
    from mmib.modules import MNERModule, MREModule
    from mmib.training.train import train

# Where the public names are; each is imported when it is first asked for: torch takes seconds.
_PUBLIC = {
    "Extractor": "mmib.extract.extractor",
    "LabelSet": "mmib.labels",
    "MNERModule": "mmib.modules",
    "MNREDataModule": "mmib.datamodules.mnre",
    "MREModule": "mmib.modules",
    "TwitterDataModule": "mmib.datamodules.twitter",
    "train": "mmib.training.train",
}
__all__ = [
    "Extractor",
    "LabelSet",
    "MNERModule",
    "MNREDataModule",
    "MREModule",
    "TwitterDataModule",
    "train",
]


def __getattr__(name: str) -> Any:
    """`mmib.Extractor` and its like, and `mmib.__version__`."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name == "__version__":
        return metadata.version("mmib")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
