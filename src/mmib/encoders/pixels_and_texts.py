"""Encoding of both pixels and side texts of images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmib.encoders.image import ImageEncoder
from mmib.encoders.regions import RegionEncoder
from mmib.encoders.side_text import SideTextEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, PostBatch


class PixelsAndTextsEncoder(RegionEncoder):
    """Combines an image encoder and an encoder of side texts; an image has the regions of both.

    Args:
        pixels: encoder of images and crops.
        texts: encoder of side texts.
    """

    source = "both"

    def __init__(self, pixels: ImageEncoder, texts: SideTextEncoder) -> None:
        super().__init__()
        self.pixels = pixels
        self.texts = texts
        self.frozen = False  # each part has its own setting

    @property
    def dims(self) -> tuple[int, ...]:
        """See `RegionEncoder.dims`."""
        return self.pixels.dim, self.texts.dim

    def share(self, text_encoder: TextEncoder) -> None:
        """See `RegionEncoder.share`."""
        self.texts.share(text_encoder)

    def encode(self, batch: PostBatch) -> tuple[Tensor, ...]:
        """See `RegionEncoder.encode`."""
        return *self.pixels.encode(batch), *self.texts.encode(batch)


def reads_alike(first: RegionEncoder, second: RegionEncoder) -> bool:
    """Whether what a data module prepares for one encoder, features or inputs, is also right for another."""
    parts = zip(encoders_of(first), encoders_of(second), strict=True)
    return first is second or all(one is other or _prepared(one) == _prepared(other) for one, other in parts)


def _prepared(encoder: ImageEncoder | SideTextEncoder | None) -> Any:
    """What the features or inputs of an encoder depend on, besides the images or texts."""
    if encoder is None:
        return None
    if encoder.frozen:
        return encoder.fingerprint()
    if isinstance(encoder, ImageEncoder):
        return encoder.regions, str(encoder.transform)
    return encoder.regions_per_text, encoder.text_encoder.tokenizer.fingerprint()


def encoders_of(encoder: RegionEncoder) -> tuple[ImageEncoder | None, SideTextEncoder | None]:
    """Return the encoders of pixels and of side texts that an image encoder consists of; None for a missing one.

    Raises:
        ConfigError: If it is of another class.
    """
    if isinstance(encoder, PixelsAndTextsEncoder):
        return encoder.pixels, encoder.texts
    if isinstance(encoder, SideTextEncoder):
        return None, encoder
    if isinstance(encoder, ImageEncoder):
        return encoder, None
    raise ConfigError(
        f"the model's image encoder is a {type(encoder).__name__}: make its class a subclass of "
        "mmib.encoders.image.ImageEncoder (docs/tutorials/extending.md)"
    )
