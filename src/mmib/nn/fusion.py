"""Fusion of text and image latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmib.nn.alignment import Latents
from mmib.nn.attention import AttentionBlock


class FusionOutput(NamedTuple):
    """Output of a fusion.

    Attributes:
        states: (B, Q, D) the fused states.
        weights: (B, Q, R) weights of each query over the regions, which sum to 1, or are 0 for a post without an image;
            None if they are not needed, or the fusion does not attend.
        scalars: (B,) values of each post by name, such as the opening of a gate; their means are logged as
            `fusion/<name>`. The names must be the same for every batch.
    """

    states: Tensor
    weights: Tensor | None = None
    scalars: Mapping[str, Tensor] = MappingProxyType({})


class Fusion(nn.Module, ABC):
    """Base of fusions. The first constructor argument of a subclass is the latent width D."""

    @abstractmethod
    def forward(self, queries: Tensor, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        """Fuse text and image.

        Args:
            queries: (B, Q, D) text latents to compute fused states for.
            text: latents of all word pieces, z (B, L, D).
            image: latents of the regions, z (B, R, D).
            need_weights: return the weights of each query over the regions, if the fusion has them.
        """


class CrossModalFusion(Fusion):
    """The paper's fusion: u = CA(z_v, z_t, z_t), F = CA(z_t, u, u), with both masks.

    Args:
        dim: latent width D.
        heads: attention heads.
        dropout: dropout of both attention blocks.
        normalized: normalise queries and keys in both attention blocks; see `AttentionBlock`.
    """

    def __init__(self, dim: int, heads: int = 12, dropout: float = 0.1, normalized: bool = False) -> None:
        super().__init__()
        self.image_reads_text = AttentionBlock(dim, heads, dropout, normalized)
        self.text_reads_image = AttentionBlock(dim, heads, dropout, normalized)

    def forward(self, queries: Tensor, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        """See `Fusion.forward`."""
        grounded = self.image_reads_text(image.z, text.z, text.mask)
        states = self.text_reads_image(queries, grounded, image.mask)
        weights = self.text_reads_image.weights(queries, grounded, image.mask) if need_weights else None
        return FusionOutput(states, weights)


class LateFusion(Fusion):
    """Baseline without attention: a two-layer perceptron on each word piece and the mean of the regions.

    Args:
        dim: latent width D.
        dropout: dropout after the hidden layer.
    """

    def __init__(self, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(2 * dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        """See `Fusion.forward`."""
        regions = image.post_mean()[:, None, :].expand_as(queries)
        return FusionOutput(self.norm(queries + self.mix(torch.cat([queries, regions], dim=-1))))
