"""Base of encoders of image regions, from an image's pixels or from its side texts."""

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
    """Base of encoders of image regions.

    Attributes:
        source: input that it reads of an image; equals the data module's `image_source`.
        frozen: whether it has no gradients and is always in evaluation mode, so that its features can be cached.
    """

    source: ClassVar[ImageSource]
    frozen: bool

    @property
    @abstractmethod
    def dims(self) -> tuple[int, ...]:
        """Feature width V of each source: of pixels, of texts, or of both in this order."""

    @abstractmethod
    def encode(self, batch: PostBatch) -> tuple[Tensor, ...]:
        """Return features (B, R, V) of each source, zero on regions of other sources."""

    def share(self, text_encoder: TextEncoder) -> None:
        """Receive the model's text encoder from the backbone; ignored unless a subclass uses it."""
        del text_encoder

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)


def lay_out(features: Tensor, mask: Tensor) -> Tensor:
    """Scatter features (N, V) to the N True positions of a mask (B, R), row by row; (B, R, V), zero elsewhere."""
    regions = features.new_zeros(*mask.shape, features.shape[-1])
    regions[mask] = features
    return regions


def digest_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Update a digest with named tensors."""
    for key, tensor in tensors.items():
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
