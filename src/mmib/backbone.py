"""The shared backbone of both tasks: multimodal information bottleneck, alignment and fusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmib.encoders.image import ImageEncoder
from mmib.encoders.text import TextEncoder
from mmib.nn.alignment import Alignment, AlignmentOutput, InfoNCEAlignment, Latents
from mmib.nn.fusion import CrossModalFusion, Fusion, FusionOutput
from mmib.nn.gaussian import GaussianEncoder, Posterior
from mmib.schema import PostBatch


@dataclass
class BackboneOutput:
    """What the backbone tells of a batch.

    Attributes:
        states: (B, Q, D) fused states at the batch's `positions`.
        attention: (B, Q, R) what these took from each region; None in training, and for fusions that do not attend.
        text: posterior of the word pieces, (B, L, D).
        image: posterior of the regions, (B, R, D).
        text_latents: what was drawn from it, or its mean.
        image_latents: the same of the image.
        alignment: the regulariser on the latents.
    """

    states: Tensor
    attention: Tensor | None
    text: Posterior
    image: Posterior
    text_latents: Latents
    image_latents: Latents
    alignment: AlignmentOutput

    def kl(self) -> dict[str, Tensor]:
        """KL of both posteriors by modality, (B, T, D) nats; see `Posterior.kl`."""
        return {"text": self.text.kl(), "image": self.image.kl()}


def latents(posterior: Posterior, drawn: bool) -> Latents:
    """Latents drawn from a posterior, or its mean."""
    return Latents(posterior.rsample() if drawn else posterior.mean, posterior.mask)


class MultimodalIB(nn.Module):
    """Encoders, a Gaussian bottleneck for each modality, alignment between them, and fusion (paper: MMIB).

    The parts that depend on the latent width D, which is the text encoder's, are given as callables of D: their
    classes, named in a configuration with their other settings.

    Args:
        text_encoder: gives states (B, L, D).
        image_encoder: gives region features of width V; runs here only for batches of pixels.
        gaussian: builds the variational encoder of each modality.
        alignment: builds the alignment regulariser.
        fusion: builds the fusion.
        sampling: draw the latents in training. False uses their means there too (ablation without RR). In
            evaluation the means are used, always.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder,
        gaussian: Callable[[int], GaussianEncoder] = GaussianEncoder,
        alignment: Callable[[int], Alignment] = InfoNCEAlignment,
        fusion: Callable[[int], Fusion] = CrossModalFusion,
        sampling: bool = True,
    ) -> None:
        super().__init__()
        dim = text_encoder.dim
        self.dim = dim
        self.sampling = sampling
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.image_projection = nn.Sequential(nn.LayerNorm(image_encoder.dim), nn.Linear(image_encoder.dim, dim))
        self.box_projection = nn.Linear(4, dim)
        self.text_posterior = gaussian(dim)
        self.image_posterior = gaussian(dim)
        self.alignment = alignment(dim)
        self.fusion = fusion(dim)

    def forward(self, batch: PostBatch) -> BackboneOutput:
        """Encode, compress, align and fuse a batch."""
        text, image = self.posteriors(batch)
        drawn = self.training and self.sampling
        text_latents, image_latents = latents(text, drawn), latents(image, drawn)
        aligned = self.alignment(text_latents, image_latents, batch.image_ids)
        fused = self.fuse(batch, text_latents, image_latents, need_weights=not self.training)
        return BackboneOutput(fused.states, fused.weights, text, image, text_latents, image_latents, aligned)

    def posteriors(self, batch: PostBatch) -> tuple[Posterior, Posterior]:
        """What the encoders and the bottlenecks make of text and image."""
        states = self.text_encoder(batch.input_ids, batch.text_mask)
        text = self.text_posterior(states, batch.text_mask)
        return text, self.image_posterior(self._regions(batch), batch.region_mask)

    def fuse(self, batch: PostBatch, text: Latents, image: Latents, need_weights: bool = False) -> FusionOutput:
        """The fused states of a batch's `positions`, (B, Q, D)."""
        # Not len(batch), a plain number: an exported network would keep that of its example.
        rows = torch.arange(batch.positions.shape[0], device=batch.positions.device)[:, None]
        return self.fusion(text.z[rows, batch.positions], text, image, need_weights=need_weights)

    def _regions(self, batch: PostBatch) -> Tensor:
        """Region features and boxes, both projected, to (B, R, D)."""
        features = batch.features if batch.features is not None else self._encode_pixels(batch)
        if batch.pixels is None and not self.image_encoder.frozen:
            # A rank whose rows have no image still touches every parameter that the others train.
            trained = (p.sum() for p in self.image_encoder.parameters() if p.requires_grad)
            features = features + 0.0 * sum(trained)
        dtype = self.box_projection.weight.dtype
        return self.image_projection(features.to(dtype)) + self.box_projection(batch.boxes.to(dtype))

    def _encode_pixels(self, batch: PostBatch) -> Tensor:
        """Encode the pictures that are there, (P, 3, H, W), and lay them out as (B, R, V)."""
        if batch.pixels is None:
            raise ValueError("a batch holds either features or pixels: this one holds neither")
        encoded = self.image_encoder(batch.pixels).flatten(0, 1)
        shape = (*batch.region_mask.shape, encoded.shape[-1])
        features = torch.zeros(shape, dtype=encoded.dtype, device=encoded.device)
        features[batch.region_mask] = encoded
        return features
