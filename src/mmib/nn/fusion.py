"""How text latents take up image latents."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mmib.nn.alignment import Latents
from mmib.nn.attention import AttentionBlock


class Fusion(nn.Module, ABC):
    """Base of fusions. Its constructor takes the latent width D first."""

    @abstractmethod
    def forward(self, queries: Tensor, text: Latents, image: Latents) -> Tensor:
        """Fuse.

        Args:
            queries: (B, Q, D) those of the text latents whose fused states are wanted.
            text: latents of all word pieces, z (B, L, D).
            image: latents of the regions, z (B, R, D).

        Returns:
            (B, Q, D).
        """


class CrossModalFusion(Fusion):
    """The paper's fusion: u = CA(z_v, z_t, z_t), F = CA(z_t, u, u), with both masks.

    Args:
        dim: latent width D.
        heads: attention heads.
        dropout: of both attention blocks.
    """

    def __init__(self, dim: int, heads: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.image_reads_text = AttentionBlock(dim, heads, dropout)
        self.text_reads_image = AttentionBlock(dim, heads, dropout)

    def forward(self, queries: Tensor, text: Latents, image: Latents) -> Tensor:
        """See `Fusion.forward`."""
        grounded = self.image_reads_text(image.z, text.z, text.mask)
        return self.text_reads_image(queries, grounded, image.mask)


class LateFusion(Fusion):
    """A baseline: every word piece meets the mean of the regions in a two-layer perceptron, without attention.

    Args:
        dim: latent width D.
        dropout: after the hidden layer.
    """

    def __init__(self, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(2 * dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, text: Latents, image: Latents) -> Tensor:
        """See `Fusion.forward`."""
        scene = image.post_mean()[:, None, :].expand_as(queries)
        return self.norm(queries + self.mix(torch.cat([queries, scene], dim=-1)))
