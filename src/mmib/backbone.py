"""The backbone that all tasks share, multimodal information bottleneck, alignment and fusion, and the heads' base."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmib.encoders.regions import RegionEncoder
from mmib.encoders.text import TextEncoder
from mmib.information import LatentMoments, LossTerm, alignment_term, kl_term, latent_moments
from mmib.labels import LabelSet
from mmib.nn.alignment import Alignment, AlignmentOutput, InfoNCEAlignment, Latents, latents
from mmib.nn.fusion import CrossModalFusion, Fusion, FusionOutput
from mmib.nn.gaussian import GaussianEncoder, Posterior
from mmib.nn.precision import at_least_float32
from mmib.nn.priors import Prior, StandardPrior
from mmib.schema import OPENING, ConfigError, PostBatch


class Posteriors(NamedTuple):
    """What the encoders and the bottlenecks make of a batch.

    Attributes:
        text: of the word pieces, (B, L, D).
        image: of the regions, (B, R, D).
        markers: of the opening markers of each pair of entities, (B, 2P, D), where they levitate over the text.
    """

    text: Posterior
    image: Posterior
    markers: Posterior | None = None

    def latents(self, sampled: bool) -> tuple[Latents, Latents, Latents | None]:
        """What is sampled from each, or their means."""
        text, image = latents(self.text, sampled), latents(self.image, sampled)
        return text, image, None if self.markers is None else latents(self.markers, sampled)


@dataclass
class BackboneOutput:
    """What the backbone tells of a batch.

    Attributes:
        states: (B, Q, D) fused states at the batch's `positions`.
        attention: (B, Q, R) what these took from each region; None in training, and for fusions that do not attend.
        text: posterior of the word pieces, (B, L, D).
        image: posterior of the regions, (B, R, D).
        text_latents: what was sampled from it, or its mean.
        image_latents: the same of the image.
        kl: KL of both posteriors to their priors by modality, (B, T, D) nats; see `MultimodalIB.kl`.
        alignment: the regulariser on the latents.
        fusion_scalars: what the fusion wants logged; see `FusionOutput.scalars`.
        markers: posterior of opening markers that levitate over the text, (B, 2P, D); see `Posteriors`.
    """

    states: Tensor
    attention: Tensor | None
    text: Posterior
    image: Posterior
    text_latents: Latents
    image_latents: Latents
    kl: dict[str, Tensor]
    alignment: AlignmentOutput
    fusion_scalars: Mapping[str, Tensor]
    markers: Posterior | None = None

    def loss_terms(self, valid: Tensor, free_bits: float) -> list[LossTerm]:
        """Rates and alignment, unweighted; see `kl_term` for the arguments."""
        masks = {"text": self.text.mask, "image": self.image.mask}
        rates = [kl_term(modality, self.kl[modality], mask, valid, free_bits) for modality, mask in masks.items()]
        return [*rates, alignment_term(self.alignment)]

    def moments(self, valid: Tensor) -> dict[str, LatentMoments]:
        """Of the latents of each modality."""
        sides = {"text": self.text, "image": self.image}
        return {modality: latent_moments(posterior, self.kl[modality], valid) for modality, posterior in sides.items()}


class MultimodalIB(nn.Module):
    """Encoders, a Gaussian bottleneck for each modality, alignment between them, and fusion (paper: MMIB).

    The parts that depend on the latent width D, which is the text encoder's, are given as callables of D: their
    classes, named in a configuration with their other settings.

    Args:
        text_encoder: gives states (B, L, D).
        image_encoder: gives region features of width V, of pixels, side texts, or both; each has its own projection.
        gaussian: builds the variational encoder of each modality.
        alignment: builds the alignment regulariser.
        fusion: builds the fusion.
        text_prior: builds the prior that the text's rate is measured against.
        image_prior: builds the image's.
        sampling: sample the latents in training. False uses their means there too (ablation without RR). In
            evaluation the means are used, always.

    Raises:
        ConfigError: a prior of the text that depends on the text.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        image_encoder: RegionEncoder,
        gaussian: Callable[[int], GaussianEncoder] = GaussianEncoder,
        alignment: Callable[[int], Alignment] = InfoNCEAlignment,
        fusion: Callable[[int], Fusion] = CrossModalFusion,
        text_prior: Callable[[int], Prior] = StandardPrior,
        image_prior: Callable[[int], Prior] = StandardPrior,
        sampling: bool = True,
    ) -> None:
        super().__init__()
        dim = text_encoder.dim
        self.dim = dim
        self.sampling = sampling
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.image_encoder.share(text_encoder)
        self.image_projection = _projection(image_encoder.dims[0], dim)
        # Of side texts, where they stand beside pixels.
        self.side_text_projection = _projection(image_encoder.dims[1], dim) if len(image_encoder.dims) > 1 else None
        self.box_projection = nn.Linear(4, dim)
        self.text_posterior = gaussian(dim)
        self.image_posterior = gaussian(dim)
        self.alignment = alignment(dim)
        self.fusion = fusion(dim)
        self.text_prior = text_prior(dim)
        self.image_prior = image_prior(dim)
        if self.text_prior.needs_text:
            raise ConfigError(
                f"text_prior is {type(self.text_prior).__name__}, which depends on the text: it can only be image_prior"
            )

    def forward(self, batch: PostBatch) -> BackboneOutput:
        """Encode, compress, align and fuse a batch."""
        found = self.posteriors(batch)
        text, image, markers = found.latents(self.training and self.sampling)
        kl = self.kl(batch, found, text)
        aligned = self.alignment(text, image, batch.image_ids)
        fused = self.fuse(batch, text, image, markers, need_weights=not self.training)
        return BackboneOutput(
            fused.states, fused.weights, found.text, found.image, text, image, kl, aligned, fused.scalars, found.markers
        )

    def posteriors(self, batch: PostBatch) -> Posteriors:
        """What the encoders and the bottlenecks make of text and image.

        Levitated markers attend to the text in the variational encoder, and the text does not attend to them.
        """
        pieces, mask, markers = batch.input_ids, batch.text_mask, None
        if batch.markers is None:
            states = self.text_encoder(pieces, mask)
        else:
            states, of_markers = self.text_encoder.with_markers(pieces, mask, batch.markers)
            opening = of_markers[:, :, OPENING].flatten(1, 2)
            markers = self.text_posterior(opening, batch.position_mask, context=(states, mask))
        text = self.text_posterior(states, mask)
        return Posteriors(text, self.image_posterior(self._regions(batch), batch.region_mask), markers)

    def kl(self, batch: PostBatch, found: Posteriors, text: Latents) -> dict[str, Tensor]:
        """KL of the posteriors to their priors by modality, (B, T, D) nats.

        What levitated markers hold has come from the text, past its latents: it is paid for as the text's, and stands
        at the pieces over which they levitate. Otherwise all of a text could pass the bottleneck by them, untaxed.

        Args:
            batch: the batch.
            found: its posteriors.
            text: latents of the text, which priors may depend on.
        """
        of_text, of_image = self.text_prior(found.text, text), self.image_prior(found.image, text)
        if found.markers is not None:
            where = _rows(batch.positions), batch.positions.clamp(min=0)
            of_text = of_text.index_put(where, self.text_prior(found.markers, text), accumulate=True)
        return {"text": of_text, "image": of_image}

    def fuse(
        self,
        batch: PostBatch,
        text: Latents,
        image: Latents,
        markers: Latents | None = None,
        need_weights: bool = False,
    ) -> FusionOutput:
        """The fused states of a batch's `positions`, or of the markers that levitate over them, (B, Q, D)."""
        queries = text.z[_rows(batch.positions), batch.positions] if markers is None else markers.z
        fused: FusionOutput = self.fusion(queries, text, image, need_weights=need_weights)
        return fused

    def _regions(self, batch: PostBatch) -> Tensor:
        """Region features and boxes, both projected, to (B, R, D)."""
        dtype = self.box_projection.weight.dtype
        sources = [features.to(dtype) for features in self.image_encoder.encode(batch)]
        projected: Tensor = self.image_projection(sources[0])
        if self.side_text_projection is not None:
            projected = torch.where(batch.pixel_mask[:, :, None], projected, self.side_text_projection(sources[1]))
        boxes: Tensor = self.box_projection(batch.boxes.to(dtype))
        return projected + boxes


def _rows(positions: Tensor) -> Tensor:
    """(B, 1) the number of each row; an exported network would keep len(batch), a plain number, of its example."""
    return torch.arange(positions.shape[0], device=positions.device)[:, None]


def _projection(width: int, dim: int) -> nn.Sequential:
    """Region features of some width to D."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))


class ExtractionNetwork(nn.Module, ABC):
    """Backbone and head of a task: the network as it is used, without objective, metrics and optimiser.

    Everything that it learns belongs to a child module, whose name is part of the names in checkpoints.

    Args:
        backbone: the shared network.
        labels: what is predicted.
    """

    task: ClassVar[str]
    head: nn.Module

    def __init__(self, backbone: MultimodalIB, labels: LabelSet) -> None:
        super().__init__()
        self.backbone = backbone
        self.labels = labels

    def scores(self, states: Tensor) -> Tensor:
        """(B, Q, D) fused states to what is decoded, in at least float32: logits (B, C), or emissions (B, W, K)."""
        return at_least_float32(self.head(states))

    @abstractmethod
    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        """Task loss of each post, (B,), in nats."""

    @abstractmethod
    def decode(self, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """`predicted` in the form of `gold`'s, and what else is known of each row's prediction, (B, ...) each."""

    @abstractmethod
    def gold(self, batch: Any) -> Tensor:
        """Gold label ids."""

    def label_counts(self, batch: Any) -> Tensor | None:
        """(C,) how many valid posts have each label; None where a post has many labels."""
        del batch
        return None

    @abstractmethod
    def settings(self) -> dict[str, float | bool | None]:
        """What decides how scores are decoded, as its constructor takes it."""


class Regularizer(nn.Module, ABC):
    """A further term of the objective, made of what the backbone gives for a batch; named in a configuration."""

    @abstractmethod
    def forward(self, output: BackboneOutput, batch: PostBatch) -> LossTerm:
        """The term, as a sum over this rank's valid rows; its own `weight` counts in the objective."""
