"""Multimodal entity and relation extraction from social media posts with a variational information bottleneck."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmib.backbone import MultimodalIB
    from mmib.callbacks.monitor import IBMonitor
    from mmib.datamodules.columns import ColumnsDataModule
    from mmib.datamodules.jsonl import JSONLinesDataModule
    from mmib.datamodules.mnre import MNREDataModule
    from mmib.datamodules.twitter import TwitterDataModule
    from mmib.encoders.image import ImageEncoder
    from mmib.encoders.text import TextEncoder
    from mmib.extract.extractor import Extractor
    from mmib.labels import LabelSet
    from mmib.modules import MNERModule, MREModule
    from mmib.nn.alignment import InfoNCEAlignment, JSDAlignment
    from mmib.nn.fusion import CrossModalFusion, LateFusion
    from mmib.nn.gaussian import GaussianEncoder
    from mmib.optim import OptimizerSettings
    from mmib.schema import MMIBError
    from mmib.training.train import train

# Modules of the public names. Each is imported on first access, because importing torch takes seconds.
_PUBLIC = {
    "ColumnsDataModule": "mmib.datamodules.columns",
    "CrossModalFusion": "mmib.nn.fusion",
    "Extractor": "mmib.extract.extractor",
    "GaussianEncoder": "mmib.nn.gaussian",
    "IBMonitor": "mmib.callbacks.monitor",
    "ImageEncoder": "mmib.encoders.image",
    "InfoNCEAlignment": "mmib.nn.alignment",
    "JSDAlignment": "mmib.nn.alignment",
    "JSONLinesDataModule": "mmib.datamodules.jsonl",
    "LabelSet": "mmib.labels",
    "LateFusion": "mmib.nn.fusion",
    "MMIBError": "mmib.schema",
    "MNERModule": "mmib.modules",
    "MNREDataModule": "mmib.datamodules.mnre",
    "MREModule": "mmib.modules",
    "MultimodalIB": "mmib.backbone",
    "OptimizerSettings": "mmib.optim",
    "TextEncoder": "mmib.encoders.text",
    "TwitterDataModule": "mmib.datamodules.twitter",
    "train": "mmib.training.train",
}
__all__ = [
    "ColumnsDataModule",
    "CrossModalFusion",
    "Extractor",
    "GaussianEncoder",
    "IBMonitor",
    "ImageEncoder",
    "InfoNCEAlignment",
    "JSDAlignment",
    "JSONLinesDataModule",
    "LabelSet",
    "LateFusion",
    "MMIBError",
    "MNERModule",
    "MNREDataModule",
    "MREModule",
    "MultimodalIB",
    "OptimizerSettings",
    "TextEncoder",
    "TwitterDataModule",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name, such as `mmib.Extractor`, or look up `mmib.__version__`."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name == "__version__":
        return metadata.version("mmib")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, for tab completion."""
    return sorted({*globals(), *__all__, "__version__"})
