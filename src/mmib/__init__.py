"""Multimodal entity and relation extraction from social media posts with a variational information bottleneck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmib.extract.extractor import Extractor

__all__ = ["Extractor"]


def __getattr__(name: str) -> Any:
    """`mmib.Extractor`, imported when it is first asked for: torch takes seconds."""
    if name == "Extractor":
        from mmib.extract.extractor import Extractor  # noqa: PLC0415

        return Extractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
