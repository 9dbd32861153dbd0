"""What encoders of image regions have in common, whatever they read of an image: its pixels, or texts of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mmib.encoders.text import TextEncoder
from mmib.schema import PostBatch

ImageSource = Literal["pixels", "text", "both"]


class RegionEncoder(nn.Module, ABC):
    """Encoder of the regions of images.

    Attributes:
        source: what it reads of an image; `image_source` of the data module is the same.
        frozen: no gradient, and always in evaluation mode, so that its features may be computed once and cached.
    """

    source: ClassVar[ImageSource]
    frozen: bool

    @property
    @abstractmethod
    def dims(self) -> tuple[int, ...]:
        """Feature width V of each source: of pixels, of texts, or of these two."""

    @abstractmethod
    def encode(self, batch: PostBatch) -> tuple[Tensor, ...]:
        """Features (B, R, V) of each source, zero on regions that are not of it."""

    def share(self, text_encoder: TextEncoder) -> None:
        """Take note of the model's text encoder, which the backbone calls it with; only some have a use for it."""
        del text_encoder

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder ignores training mode."""
        return super().train(mode and not self.frozen)


def lay_out(features: Tensor, mask: Tensor) -> Tensor:
    """Features (N, V) of the N regions that a mask (B, R) is True on, row by row, as (B, R, V); zero elsewhere."""
    regions = features.new_zeros(*mask.shape, features.shape[-1])
    regions[mask] = features
    return regions


def digest_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Update a digest with named tensors."""
    for key, tensor in tensors.items():
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
