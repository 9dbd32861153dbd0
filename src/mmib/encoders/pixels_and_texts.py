"""Pixels and side texts of images side by side."""

from __future__ import annotations

from torch import Tensor

from mmib.encoders.image import ImageEncoder
from mmib.encoders.regions import RegionEncoder
from mmib.encoders.side_text import SideTextEncoder
from mmib.encoders.text import TextEncoder
from mmib.schema import ConfigError, PostBatch


class PixelsAndTextsEncoder(RegionEncoder):
    """An encoder of images and one of their side texts: the regions of an image are those of both.

    Args:
        pixels: encodes images and crops.
        texts: encodes side texts.
    """

    source = "both"

    def __init__(self, pixels: ImageEncoder, texts: SideTextEncoder) -> None:
        super().__init__()
        self.pixels = pixels
        self.texts = texts
        self.frozen = False  # each of them knows by itself

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


def encoders_of(encoder: RegionEncoder) -> tuple[ImageEncoder | None, SideTextEncoder | None]:
    """What an image encoder consists of: an encoder of pixels, one of side texts, or both.

    Raises:
        ConfigError: it is none of these.
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
