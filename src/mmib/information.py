"""Loss terms, metric sums of a batch over all ranks, and the scalars computed from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mmib.base.distributed import global_sums, widened
from mmib.nn.alignment import AlignmentOutput, Latents
from mmib.nn.gaussian import Posterior
from mmib.nn.precision import autocast_off
from mmib.schema import PostBatch, Window

MODALITIES = ("text", "image")
# A latent dimension is active if the variance of its mean over the data exceeds this (Burda et al. 2016, section 5.2).
ACTIVE_VARIANCE = 0.01


@dataclass
class Mean:
    """A sum and its count, which add up over batches to a mean.

    Attributes:
        total: any shape.
        count: scalar.
    """

    total: Tensor
    count: Tensor

    @property
    def value(self) -> Tensor:
        """The mean; 0 if the count is 0."""
        return self.total / self.count.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A term of the objective as a sum over this rank's rows.

    Its value is `weight * reduce(sum / count)`, with sum and count over all ranks.

    Attributes:
        name: unique name in the objective; the gradient norm is logged as `grad/<name>`.
        sum: scalar with a graph, or (D,) if `reduce` makes a scalar of the mean.
        count: scalar, number of posts, positions or anchors in the sum.
        weight: factor in the objective.
        unit: field of `Window` that weighs the term under gradient accumulation.
        reduce: function from the global mean, of the shape of `sum`, to the scalar that is optimised.
        logged_as: name in the logs of the mean, summed over its elements; by default `loss/<name>`.
        scalars: further means to log, by name and without a graph; the names must be the same for every batch.
    """

    name: str
    sum: Tensor
    count: Tensor
    weight: float = 1.0
    unit: str = "posts"
    reduce: Callable[[Tensor], Tensor] = torch.Tensor.sum
    logged_as: str = ""
    scalars: Mapping[str, Mean] = field(default_factory=dict)

    @property
    def log_name(self) -> str:
        """Name of the mean in the logs."""
        return self.logged_as or f"loss/{self.name}"

    def value(self, mean: Mean, window: Window) -> Tensor:
        """Return the weighted scalar for a mean over all ranks."""
        factor: float = getattr(window, self.unit) * self.weight
        return factor * self.reduce(mean.value)


@dataclass
class LatentMoments:
    """Sums over the valid positions of a modality, without a graph.

    Attributes:
        positions: number of positions.
        kl_square: sum of the squared KL of each position, in nats squared.
        std: sum of the posterior's standard deviation, averaged over latent dimensions.
        mean: (D,) sum of the posterior's mean.
        mean_square: (D,) sum of the squared mean.
    """

    positions: Tensor
    kl_square: Tensor
    std: Tensor
    mean: Tensor
    mean_square: Tensor


@dataclass
class PairMoments:
    """Sums over the posts with an image, without a graph.

    Attributes:
        count: number of posts.
        text: (D,) sum of the text's mean latents, normalised to unit length.
        image: (D,) sum of the image's, likewise.
        cosine: sum of the cosine of both.
    """

    count: Tensor
    text: Tensor
    image: Tensor
    cosine: Tensor


@dataclass
class MetricSums:
    """All metrics of one or several global batches, as sums that can be added.

    Attributes:
        posts: number of posts.
        terms: unweighted loss terms by name.
        scalars: further means by their names in the logs; `loss` is the objective.
        moments: moments of the latents of each modality.
        pairs: moments of the posts with an image.
        labels: (C,) number of posts with each label; None if a post has many labels.
        logged_as: name of each loss term in the logs.
    """

    posts: Tensor
    terms: dict[str, Mean]
    scalars: dict[str, Mean]
    moments: dict[str, LatentMoments]
    pairs: PairMoments
    labels: Tensor | None = None
    logged_as: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: MetricSums) -> MetricSums:
        """Add two sums on the device of `other`, as sums from a checkpoint are on the CPU."""
        ours, theirs = flatten(self), flatten(other)
        both = {name: ours[name].to(value.device) + value if name in ours else value for name, value in theirs.items()}
        added: MetricSums = _filled(other, both)
        return added

    def detached(self) -> MetricSums:
        """Return the sums detached from the graph."""
        detached: MetricSums = _filled(self, {name: tensor.detach() for name, tensor in flatten(self).items()})
        return detached

    def rate(self, modality: str) -> Tensor:
        """(D,) nats of each latent dimension: the KL averaged over a modality's positions; 0 without positions."""
        return self.terms[f"kl_{modality}"].value

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of tensors and strings, as a checkpoint holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Build the sums from the result of `to_dict`."""
        return cls(
            posts=state["posts"],
            terms={name: Mean(**mean) for name, mean in state["terms"].items()},
            scalars={name: Mean(**mean) for name, mean in state["scalars"].items()},
            moments={name: LatentMoments(**moments) for name, moments in state["moments"].items()},
            pairs=PairMoments(**state["pairs"]),
            labels=state["labels"],
            logged_as=state["logged_as"],
        )


def flatten(value: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested dataclasses and dictionaries, by path."""
    if isinstance(value, Tensor):
        return {prefix: value}
    parts = value if isinstance(value, dict) else vars(value) if dataclasses.is_dataclass(value) else {}
    return {name: tensor for key, part in parts.items() for name, tensor in flatten(part, f"{prefix}.{key}").items()}


def _filled(value: Any, tensors: dict[str, Tensor], prefix: str = "") -> Any:
    """Invert `flatten`: a structure like `value` with these tensors."""
    if isinstance(value, Tensor):
        return tensors[prefix]
    if isinstance(value, dict):
        return {key: _filled(part, tensors, f"{prefix}.{key}") for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {name: _filled(part, tensors, f"{prefix}.{name}") for name, part in vars(value).items()}
        return dataclasses.replace(value, **parts)
    return value


def over_ranks(sums: MetricSums) -> MetricSums:
    """Add up the sums of all ranks, widened, in one collective that every rank must call; gradients reach the terms."""
    filled: MetricSums = _filled(sums, global_sums(flatten(sums)))
    return filled


def post_means(values: Tensor, valid: Tensor) -> Mean:
    """Return the mean of (B,) values over the valid rows."""
    return Mean(values.masked_fill(~valid, 0.0).sum(), valid.sum())


def kl_term(modality: str, kl: Tensor, positions: Tensor, valid: Tensor, free_bits: float = 0.0) -> LossTerm:
    """Return the rate of a modality (paper: RR) in nats per position: the KL summed over latent dimensions.

    Args:
        modality: `text` or `image`.
        kl: (B, T, D) nats, zero where masked.
        positions: (B, T) True on valid positions of the modality.
        valid: (B,) False on padding rows.
        free_bits: KL per latent dimension, in nats and averaged over the batch, below which it is not penalised.
    """
    with autocast_off(kl):
        # Widened, as the variance of the KL is the difference of two nearly equal sums.
        nats = widened(kl).masked_fill(~valid[:, None, None], 0.0).sum(dim=(0, 1))
    return LossTerm(
        name=f"kl_{modality}",
        sum=nats,
        count=(positions & valid[:, None]).sum(),
        unit={"text": "tokens", "image": "regions"}[modality],
        reduce=lambda mean: mean.clamp(min=free_bits).sum(),
        logged_as=f"ib/kl_{modality}",
    )


def alignment_term(output: AlignmentOutput) -> LossTerm:
    """Return the alignment regulariser (paper: AR), a mean over anchors."""
    anchors = output.anchors
    scalars = {f"align/{name}": Mean(value * anchors, anchors) for name, value in output.scalars.items()}
    return LossTerm(
        name="align",
        sum=output.loss * anchors,
        count=anchors,
        unit="images",
        logged_as="align/loss",
        scalars=scalars,
    )


@torch.no_grad()
def latent_moments(posterior: Posterior, kl: Tensor, valid: Tensor) -> LatentMoments:
    """Return the sums over the valid positions of a modality.

    Args:
        posterior: posterior of (B, T) positions.
        kl: (B, T, D) its KL, in nats.
        valid: (B,) False on padding rows.
    """
    with autocast_off(posterior.mean):
        mask = posterior.mask & valid[:, None]
        nats = widened(kl).masked_fill(~valid[:, None, None], 0.0)
        mean = posterior.mean.masked_fill(~mask[:, :, None], 0.0)
        deviation = torch.exp(0.5 * posterior.log_var).mean(dim=2).masked_fill(~mask, 0.0)
        return LatentMoments(
            positions=mask.sum(),
            kl_square=nats.sum(dim=2).square().sum(),
            std=deviation.sum(),
            mean=mean.sum(dim=(0, 1)),
            mean_square=mean.square().sum(dim=(0, 1)),
        )


@torch.no_grad()
def pair_moments(text: Latents, image: Latents, valid: Tensor) -> PairMoments:
    """Return the sums over posts with an image, of both modalities' unit-length mean latents and of their cosine."""
    paired = (valid & text.mask.any(dim=1) & image.mask.any(dim=1))[:, None]
    with autocast_off(text.z):
        text_unit, image_unit = (
            F.normalize(latents.post_mean().float(), dim=1).masked_fill(~paired, 0.0) for latents in (text, image)
        )
        return PairMoments(
            count=paired.sum(),
            text=text_unit.sum(dim=0),
            image=image_unit.sum(dim=0),
            cosine=(text_unit * image_unit).sum(),
        )


def scalars(sums: MetricSums) -> dict[str, Tensor]:
    """Return the scalars to log, by their documented names; those with a count of 0 are left out.

    `loss`, `task` and `ib/rate_*` are in nats per post, `ib/kl_*` and `ib/kl_std_*` per word piece or region, and
    `align/loss` per anchor.
    """
    means = {**{sums.logged_as[name]: mean for name, mean in sums.terms.items()}, **sums.scalars}
    logged = {name: mean.value.sum() for name, mean in means.items() if mean.count > 0}
    for modality, moments in sums.moments.items():
        if moments.positions > 0:
            logged |= _latent_scalars(modality, moments, logged[f"ib/kl_{modality}"])
            logged |= _pressure_scalars(modality, logged, sums.posts / moments.positions)
    if sums.pairs.count > 0:
        centres = [side / sums.pairs.count for side in (sums.pairs.text, sums.pairs.image)]
        # Distance between the modalities' centroids of unit vectors (Liang et al. 2022, section 2.1).
        logged["align/gap"] = (centres[0] - centres[1]).norm()
        logged["align/cosine"] = sums.pairs.cosine / sums.pairs.count
    return logged


def _latent_scalars(modality: str, moments: LatentMoments, kl: Tensor) -> dict[str, Tensor]:
    count = moments.positions
    variance = moments.mean_square / count - (moments.mean / count).square()
    return {
        f"ib/kl_std_{modality}": (moments.kl_square / count - kl.square()).clamp(min=0.0).sqrt(),
        f"ib/active_{modality}": (variance > ACTIVE_VARIANCE).sum(),
        f"ib/std_{modality}": moments.std / count,
    }


def _pressure_scalars(modality: str, logged: Mapping[str, Tensor], posts: Tensor) -> dict[str, Tensor]:
    """Return the scalars on the weight of a rate, from the logged scalars and the number of posts per position."""
    beta = logged.get(f"ib/beta_{modality}")
    if beta is None:
        return {}
    rate = logged[f"ib/kl_{modality}"]
    return {
        f"ib/rate_{modality}": rate / posts,
        # Beta of Alemi et al. 2017 (equation 17), for an objective that sums the KL over a post's positions.
        f"ib/beta_vib_{modality}": beta * posts,
        f"ib/share_{modality}": beta * rate / logged["loss"],
    }


def information_plane(sums: MetricSums) -> dict[str, float]:
    """Return the rate of each modality and the distortion, in nats per post.

    The rate is the mean KL, an upper bound on I(X; Z); the distortion is the task's loss. If the task labels whole
    posts, `information` is H(Y) minus the distortion, a lower bound on I(Z; Y) (Alemi et al. 2018, section 2), with the
    entropy of the summed labels.
    """
    posts = float(sums.posts)
    rates = {f"rate_{modality}": float(sums.terms[f"kl_{modality}"].total.sum()) / posts for modality in MODALITIES}
    plane = {**rates, "distortion": float(sums.terms["task"].total) / posts}
    if sums.labels is not None:
        entropy = float(torch.special.entr(sums.labels / posts).sum())
        plane["information"] = entropy - plane["distortion"]
    return plane


@torch.no_grad()
def evidence(
    attention: Tensor | None, kl: dict[str, Tensor], similarity: Tensor, batch: PostBatch
) -> dict[str, Tensor]:
    """Return the evidence for the predictions of a batch: rates, similarity and attention; NaN where undefined.

    Args:
        attention: (B, Q, R) weights over the regions; None for a fusion without attention.
        kl: (B, T, D) nats by modality.
        similarity: (B,) of text and image; see `Alignment.similarity`.
        batch: the batch.

    Returns:
        `kl` (B, W) nats of each word that the encoder sees, summed over its pieces; `kl_image` (B, R) nats of each
        region; `similarity` (B,); and, with attention, `attention` (B, Q, R), the weights of the regions at each
        position that the head reads.
    """
    columns = batch.word_ids + 1  # column 0 collects the pieces that belong to no word
    nats = kl["text"].sum(dim=2)
    by_word = nats.new_zeros(len(batch), int(columns.max()) + 1).scatter_add(1, columns, nats)
    seen = torch.zeros_like(by_word, dtype=torch.bool).scatter(1, columns, True)
    found = {
        "kl": by_word.masked_fill(~seen, torch.nan)[:, 1:],
        "kl_image": kl["image"].sum(dim=2).masked_fill(~batch.region_mask, torch.nan),
        "similarity": similarity,
    }
    if attention is not None:
        there = batch.position_mask[:, :, None] & batch.region_mask[:, None, :]
        found["attention"] = attention.masked_fill(~there, torch.nan)
    return found
