"""Loss terms and metric sums: what a batch adds up to, over all ranks, and the scalars that follow from it."""

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
# A latent dimension is active where its mean varies more than this over the data (Burda et al. 2016, section 5.2).
ACTIVE_VARIANCE = 0.01


@dataclass
class Mean:
    """A sum and the number of what was summed, from which a mean over any number of batches follows.

    Attributes:
        total: any shape.
        count: scalar.
    """

    total: Tensor
    count: Tensor

    @property
    def value(self) -> Tensor:
        """The mean; 0 where nothing was summed."""
        return self.total / self.count.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A term of the objective, as a sum over this rank's rows: `weight * reduce(sum / count)`, over all ranks.

    Attributes:
        name: unique in the objective; its gradient norm is logged as `grad/<name>`.
        sum: with a graph; a scalar, or (D,) where `reduce` makes a scalar of the mean.
        count: scalar, how many posts, positions or anchors were summed.
        weight: factor in the objective.
        unit: which count of a `Window` weighs it where gradients are accumulated.
        reduce: from the global mean, of the shape of `sum`, to the scalar that is optimised.
        logged_as: name of the mean, summed over its elements, in the logs; `loss/<name>` where none is given.
        scalars: further means to log, by their names in the logs, without a graph; the same names for every batch.
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
        """The weighted scalar, of the mean over all ranks."""
        factor: float = getattr(window, self.unit) * self.weight
        return factor * self.reduce(mean.value)


@dataclass
class LatentMoments:
    """Sums over the valid positions of a modality, without a graph.

    Attributes:
        positions: how many there are.
        kl_square: of the squared KL of a position, in nats.
        std: of the posterior's standard deviation, averaged over latent dimensions.
        mean: (D,) of the posterior's mean.
        mean_square: (D,) of its square.
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
        count: how many there are.
        text: (D,) of the text's mean latents as unit vectors.
        image: (D,) of the image's.
        cosine: of the cosine of both.
    """

    count: Tensor
    text: Tensor
    image: Tensor
    cosine: Tensor


@dataclass
class MetricSums:
    """Everything that is logged of one or several global batches, as sums that may be added up.

    Attributes:
        posts: how many there were.
        terms: each loss term, by name, before its weight.
        scalars: further means, by their names in the logs; `loss` is the objective.
        moments: of the latents of each modality.
        pairs: of posts with an image.
        labels: (C,) how many posts have each label; None where a post has many.
        logged_as: name in the logs of each loss term.
    """

    posts: Tensor
    terms: dict[str, Mean]
    scalars: dict[str, Mean]
    moments: dict[str, LatentMoments]
    pairs: PairMoments
    labels: Tensor | None = None
    logged_as: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: MetricSums) -> MetricSums:
        """The sums of both, on the device of `other`: what comes out of a checkpoint is on the CPU."""
        ours, theirs = flatten(self), flatten(other)
        both = {name: ours[name].to(value.device) + value if name in ours else value for name, value in theirs.items()}
        added: MetricSums = _filled(other, both)
        return added

    def detached(self) -> MetricSums:
        """The same without a graph."""
        detached: MetricSums = _filled(self, {name: tensor.detach() for name, tensor in flatten(self).items()})
        return detached

    def rate(self, modality: str) -> Tensor:
        """Nats of each latent dimension, (D,): the KL averaged over a modality's positions; 0 where there are none."""
        return self.terms[f"kl_{modality}"].value

    def to_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it: nothing but dictionaries of tensors and text."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
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
    """The tensors of nested dataclasses and dictionaries, by their paths."""
    if isinstance(value, Tensor):
        return {prefix: value}
    parts = value if isinstance(value, dict) else vars(value) if dataclasses.is_dataclass(value) else {}
    return {name: tensor for key, part in parts.items() for name, tensor in flatten(part, f"{prefix}.{key}").items()}


def _filled(value: Any, tensors: dict[str, Tensor], prefix: str = "") -> Any:
    """The inverse of `flatten`, for what is built like `value`."""
    if isinstance(value, Tensor):
        return tensors[prefix]
    if isinstance(value, dict):
        return {key: _filled(part, tensors, f"{prefix}.{key}") for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {name: _filled(part, tensors, f"{prefix}.{name}") for name, part in vars(value).items()}
        return dataclasses.replace(value, **parts)
    return value


def over_ranks(sums: MetricSums) -> MetricSums:
    """The sums of all ranks, widened and in one collective; gradients reach the terms. Every rank must call this."""
    filled: MetricSums = _filled(sums, global_sums(flatten(sums)))
    return filled


def post_means(values: Tensor, valid: Tensor) -> Mean:
    """The mean of (B,) values over the valid rows."""
    return Mean(values.masked_fill(~valid, 0.0).sum(), valid.sum())


def kl_term(modality: str, kl: Tensor, positions: Tensor, valid: Tensor, free_bits: float = 0.0) -> LossTerm:
    """The rate of a modality (paper: RR), in nats a position: the KL summed over latent dimensions.

    Args:
        modality: `text` or `image`.
        kl: (B, T, D) nats, zero where masked.
        positions: (B, T) True on the positions that the modality has.
        valid: (B,) False on padding rows.
        free_bits: nats a latent dimension below which its KL, averaged over the batch, is not pressed further.
    """
    with autocast_off(kl):
        # Widened: the spread of the KL is the difference of two sums that are nearly equal.
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
    """The alignment regulariser (paper: AR), a mean over anchors."""
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
    """Sums over the positions of a modality that count.

    Args:
        posterior: of (B, T) positions.
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
    """Sums over posts with an image: of both sides' mean latents as unit vectors (D,), and of their cosine."""
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
    """What is logged, by the names of the documentation; what nothing was summed for is left out.

    In nats a post (`loss`, `task`, `ib/rate_*`), a word piece or a region (`ib/kl_*`, `ib/kl_std_*`), an anchor
    (`align/loss`).
    """
    means = {**{sums.logged_as[name]: mean for name, mean in sums.terms.items()}, **sums.scalars}
    logged = {name: mean.value.sum() for name, mean in means.items() if mean.count > 0}
    for modality, moments in sums.moments.items():
        if moments.positions > 0:
            logged |= _latent_scalars(modality, moments, logged[f"ib/kl_{modality}"])
            logged |= _pressure_scalars(modality, logged, sums.posts / moments.positions)
    if sums.pairs.count > 0:
        centres = [side / sums.pairs.count for side in (sums.pairs.text, sums.pairs.image)]
        # The distance of both sides' centres on the unit sphere (Liang et al. 2022, section 2.1).
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
    """How strongly a rate is pressed, of what is logged and the number of posts a position."""
    beta = logged.get(f"ib/beta_{modality}")
    if beta is None:
        return {}
    rate = logged[f"ib/kl_{modality}"]
    return {
        f"ib/rate_{modality}": rate / posts,
        # The beta of Alemi et al. 2017 (equation 17): of an objective that sums the KL over a post's positions.
        f"ib/beta_vib_{modality}": beta * posts,
        f"ib/share_{modality}": beta * rate / logged["loss"],
    }


def information_plane(sums: MetricSums) -> dict[str, float]:
    """Rate of each modality and distortion, in nats a post: mean KL, an upper bound on I(X; Z), and the task's loss.

    Where the task labels whole posts, also `information`, H(Y) minus the distortion: a lower bound on I(Z; Y) (Alemi et
    al. 2018, section 2), with the entropy of the labels that were summed.
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
    """What the predictions of a batch rest on; NaN where there is nothing.

    Args:
        attention: the weights over the regions, (B, Q, R); None for a fusion that does not attend.
        kl: by modality, (B, T, D) nats.
        similarity: (B,) of text and image; see `Alignment.similarity`.
        batch: the batch.

    Returns:
        `kl` (B, W) nats of each word that the encoder sees, summed over its pieces; `kl_image` (B, R) nats of each
        region; `similarity` (B,); and, where the fusion attends, `attention` (B, Q, R), the weights with which each
        position that the head reads took from the regions.
    """
    columns = batch.word_ids + 1  # what belongs to no word goes into a column of its own, before the words
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
