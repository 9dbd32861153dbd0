"""Geometry of a latent space: collapse, effective rank, the gap between modalities, and whose image is nearest.

Shapes: N posts, D latent width. Vectors are compared by their directions: all figures are of unit vectors, and none
changes where all latents of a modality are scaled alike. A vector without a direction stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Cosines that differ by less are equal: latents come in float32.
TIE = 1e-6


@dataclass(frozen=True)
class Geometry:
    """What a latent space is worth, in figures; NaN where there is nothing to measure.

    Attributes:
        posts: how many were measured.
        cosine_text, cosine_image: mean cosine between the latents of different posts; 1 is collapse.
        effective_rank_text, effective_rank_image: see `effective_rank`; 1 to the smaller of N and D.
        gap: see `modality_gap`.
        pair_cosine: mean cosine of a post's text and image.
        own_image_rank: median rank of a post's own image; 1 is best.
        own_image_share: median of rank over candidates.
        candidates: median number of images that a post's text chose from, its own included.
    """

    posts: int
    cosine_text: float
    cosine_image: float
    effective_rank_text: float
    effective_rank_image: float
    gap: float
    pair_cosine: float
    own_image_rank: float
    own_image_share: float
    candidates: float


class PairedLatents:
    """Mean latents of text and image of the same N posts.

    Args:
        text: (N, D).
        image: (N, D).
        image_ids: (N,) posts of equal id share their image; without them each post has an image of its own.

    Raises:
        ValueError: text and image have not the same shape.
    """

    def __init__(self, text: NDArray[Any], image: NDArray[Any], image_ids: NDArray[Any] | None = None) -> None:
        if np.shape(text) != np.shape(image):
            raise ValueError(f"text {np.shape(text)} and image {np.shape(image)} are not latents of the same posts")
        self.text = unit_vectors(text)
        self.image = unit_vectors(image)
        self.image_ids = np.arange(len(text)) if image_ids is None else image_ids

    @cached_property
    def ranks(self) -> tuple[Array, Array]:
        """See `own_image_ranks`: among all posts."""
        return own_image_ranks(self.text, self.image, self.image_ids)

    def geometry(self, members: NDArray[np.bool_] | None = None) -> Geometry:
        """The figures of all posts, or of those where `members` (N,) is True; candidates are the images of all."""
        chosen = np.ones(len(self.text), dtype=bool) if members is None else members
        text, image = self.text[chosen], self.image[chosen]
        ranks, candidates = (values[chosen] for values in self.ranks)
        ranked = candidates > 1
        return Geometry(
            posts=len(text),
            cosine_text=mean_cosine(text),
            cosine_image=mean_cosine(image),
            effective_rank_text=effective_rank(text),
            effective_rank_image=effective_rank(image),
            gap=modality_gap(text, image),
            pair_cosine=float((text * image).sum() / len(text)) if len(text) else np.nan,
            own_image_rank=_median(ranks[ranked]),
            own_image_share=_median(ranks[ranked] / candidates[ranked]),
            candidates=_median(candidates[ranked]),
        )


def unit_vectors(vectors: NDArray[Any]) -> Array:
    """(N, D) vectors of length 1 in the same directions; zero where there is none, NaN where one is not finite."""
    widened = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(widened, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        units: Array = np.divide(widened, norms, out=np.zeros_like(widened), where=norms != 0)
    return units


def mean_cosine(units: Array) -> float:
    """Mean cosine between (N, D) unit vectors of different rows; NaN for fewer than two."""
    count = len(units)
    if count < 2:
        return np.nan
    # All pairs without a loop: the square of the sum holds each pair twice, and each vector with itself.
    pairs = np.square(units.sum(axis=0)).sum() - np.square(units).sum()
    return float(pairs / (count * (count - 1)))


def effective_rank(vectors: Array) -> float:
    """exp of the entropy of the normalised singular values of an (N, D) matrix; NaN where it is zero or not finite.

    How many directions the vectors really use (Roy & Vetterli 2007, definition 1).
    """
    if not vectors.any() or not np.isfinite(vectors).all():
        return np.nan
    widths = np.linalg.svd(vectors, compute_uv=False)
    shares = widths / widths.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def modality_gap(text: Array, image: Array) -> float:
    """Distance of the centres of two sets of unit vectors, 0 to 2 (Liang et al. 2022, section 2.1)."""
    return float(np.linalg.norm(text.mean(axis=0) - image.mean(axis=0))) if len(text) else np.nan


def own_image_ranks(text: Array, image: Array, image_ids: NDArray[Any]) -> tuple[Array, Array]:
    """Rank of each post's own image among the images of other posts, by cosine with its text, and the candidates.

    Each modality is centred first: a gap between them would decide otherwise. Ties share the mean of their ranks.
    Posts with the same image are not each other's candidates.

    Args:
        text: (N, D) unit vectors.
        image: (N, D) unit vectors.
        image_ids: (N,) equal where posts share their image.

    Returns:
        Ranks (N,), from 1, and numbers of candidates (N,), the own image included.
    """
    cosines = _centred(text) @ _centred(image).T
    own = np.diagonal(cosines)[:, None]
    others = image_ids[:, None] != image_ids[None, :]
    better = ((cosines > own + TIE) & others).sum(axis=1)
    tied = ((np.abs(cosines - own) <= TIE) & others).sum(axis=1)
    ranks = np.where(np.isnan(own[:, 0]), np.nan, 1 + better + tied / 2)
    return ranks, 1.0 + others.sum(axis=1)


def _centred(units: Array) -> Array:
    centred = units - units.mean(axis=0) if len(units) else units
    # What is left of vectors that are all the same is rounding, and has no direction.
    return unit_vectors(np.where(np.linalg.norm(centred, axis=1, keepdims=True) < TIE, 0.0, centred))


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else np.nan
