"""The backbone shared by all tasks (multimodal bottleneck, alignment, fusion), and the base of task networks."""

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
    """Posteriors of a batch, computed by the encoders and the bottlenecks.

    Attributes:
        text: posterior of the word pieces, (B, L, D).
        image: posterior of the regions, (B, R, D).
        markers: posterior of the opening markers of each entity pair, (B, 2P, D); None unless markers levitate.
    """

    text: Posterior
    image: Posterior
    markers: Posterior | None = None

    def latents(self, sampled: bool) -> tuple[Latents, Latents, Latents | None]:
        """Return a sample of each posterior, or its mean."""
        text, image = latents(self.text, sampled), latents(self.image, sampled)
        return text, image, None if self.markers is None else latents(self.markers, sampled)


@dataclass
class BackboneOutput:
    """Output of the backbone for a batch.

    Attributes:
        states: (B, Q, D) fused states at the batch's `positions`.
        attention: (B, Q, R) their weights over the regions; None in training, and for fusions without attention.
        text: posterior of the word pieces, (B, L, D).
        image: posterior of the regions, (B, R, D).
        text_latents: sample or mean of the text posterior.
        image_latents: sample or mean of the image posterior.
        kl: KL of both posteriors to their priors by modality, (B, T, D) nats; see `MultimodalIB.kl`.
        alignment: the regulariser on the latents.
        fusion_scalars: values that the fusion logs; see `FusionOutput.scalars`.
        markers: posterior of levitated opening markers, (B, 2P, D); see `Posteriors`.
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
        """Return rates and alignment, unweighted; see `kl_term` for the arguments."""
        masks = {"text": self.text.mask, "image": self.image.mask}
        rates = [kl_term(modality, self.kl[modality], mask, valid, free_bits) for modality, mask in masks.items()]
        return [*rates, alignment_term(self.alignment)]

    def moments(self, valid: Tensor) -> dict[str, LatentMoments]:
        """Return the moments of the latents of each modality."""
        sides = {"text": self.text, "image": self.image}
        return {modality: latent_moments(posterior, self.kl[modality], valid) for modality, posterior in sides.items()}


class MultimodalIB(nn.Module):
    """Encoders, a Gaussian bottleneck for each modality, alignment between them, and fusion (paper: MMIB).

    Parts that depend on the latent width D, which is the text encoder's, are passed as callables of D. In a
    configuration they are named by class, with their other settings.

    Args:
        text_encoder: encodes word pieces to states (B, L, D).
        image_encoder: encodes pixels, side texts, or both to region features of width V, each with its own projection.
        gaussian: builds the variational encoder of each modality.
        alignment: builds the alignment regulariser.
        fusion: builds the fusion.
        text_prior: builds the prior of the text's rate.
        image_prior: builds the prior of the image's rate.
        sampling: sample the latents in training; False uses their means (ablation without RR). Evaluation always uses
            the means.

    Raises:
        ConfigError: If parts do not fit the width D, or the text prior depends on the text.
    """

    text_posterior: GaussianEncoder
    image_posterior: GaussianEncoder
    alignment: Alignment
    fusion: Fusion
    text_prior: Prior
    image_prior: Prior

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
        # For side texts, if the encoder also has pixels.
        self.side_text_projection = _projection(image_encoder.dims[1], dim) if len(image_encoder.dims) > 1 else None
        self.box_projection = nn.Linear(4, dim)
        self._build(
            text_posterior=("gaussian", gaussian),
            image_posterior=("gaussian", gaussian),
            alignment=("alignment", alignment),
            fusion=("fusion", fusion),
            text_prior=("text_prior", text_prior),
            image_prior=("image_prior", image_prior),
        )
        if self.text_prior.needs_text:
            raise ConfigError(
                f"text_prior is {type(self.text_prior).__name__}, which depends on the text: it can only be image_prior"
            )

    def _build(self, **parts: tuple[str, Callable[[int], nn.Module]]) -> None:
        """Build the parts of width D, given with the names of their options, and report the errors of all together."""
        errors = {}
        for attribute, (option, build) in parts.items():
            try:
                setattr(self, attribute, build(self.dim))
            except ConfigError as error:
                errors[option] = str(error)
        if errors:
            misfits = "; ".join(f"model.backbone.{option}: {message}" for option, message in errors.items())
            raise ConfigError(f"the text encoder's states are {self.dim} wide, and some parts do not fit: {misfits}")

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
        """Encode text and image, and return their posteriors.

        Levitated markers attend to the text in the variational encoder, but the text does not attend to them.
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
        """Return the KL of the posteriors to their priors by modality, (B, T, D) nats.

        Levitated markers carry information from the text that bypasses the text's latents. Their KL is therefore added
        to that of the pieces over which they levitate; otherwise the text could evade the bottleneck through them.

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
        """Return the (B, Q, D) fused states at a batch's `positions`, or of the markers that levitate over them."""
        queries = text.z[_rows(batch.positions), batch.positions] if markers is None else markers.z
        fused: FusionOutput = self.fusion(queries, text, image, need_weights=need_weights)
        return fused

    def _regions(self, batch: PostBatch) -> Tensor:
        """Return the sum of projected region features and boxes, (B, R, D)."""
        dtype = self.box_projection.weight.dtype
        sources = [features.to(dtype) for features in self.image_encoder.encode(batch)]
        projected: Tensor = self.image_projection(sources[0])
        if self.side_text_projection is not None:
            projected = torch.where(batch.pixel_mask[:, :, None], projected, self.side_text_projection(sources[1]))
        boxes: Tensor = self.box_projection(batch.boxes.to(dtype))
        return projected + boxes


def _rows(positions: Tensor) -> Tensor:
    """(B, 1) row indices; not by len(batch), a constant that an exported network would keep from its example."""
    return torch.arange(positions.shape[0], device=positions.device)[:, None]


def _projection(width: int, dim: int) -> nn.Sequential:
    """Build the projection of region features to width D."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))


class ExtractionNetwork(nn.Module, ABC):
    """Backbone and head of a task, without objective, metrics and optimiser.

    All parameters belong to child modules, whose names are part of the parameter names in checkpoints.

    Args:
        backbone: the shared network.
        labels: label set of the predictions.
    """

    task: ClassVar[str]
    head: nn.Module

    def __init__(self, backbone: MultimodalIB, labels: LabelSet) -> None:
        super().__init__()
        self.backbone = backbone
        self.labels = labels

    def scores(self, states: Tensor) -> Tensor:
        """Map (B, Q, D) fused states to logits (B, C) or emissions (B, W, K), in at least float32."""
        return at_least_float32(self.head(states))

    @abstractmethod
    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        """Return the task loss of each post, (B,), in nats."""

    @abstractmethod
    def decode(self, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        """Return `predicted` label ids, shaped as those of `gold`, and further outputs of each row, (B, ...) each."""

    @abstractmethod
    def gold(self, batch: Any) -> Tensor:
        """Return the gold label ids."""

    def label_counts(self, batch: Any) -> Tensor | None:
        """(C,) number of valid posts with each label; None if a post has many labels."""
        del batch
        return None

    @abstractmethod
    def settings(self) -> dict[str, float | bool | None]:
        """Return the constructor arguments that decide how scores are decoded."""


class Regularizer(nn.Module, ABC):
    """Base of custom terms of the objective, computed from the backbone's output; named in a configuration."""

    @abstractmethod
    def forward(self, output: BackboneOutput, batch: PostBatch) -> LossTerm:
        """Return the term as a sum over this rank's valid rows; its `weight` applies in the objective."""
