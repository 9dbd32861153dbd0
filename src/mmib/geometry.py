"""Geometry of a latent space: collapse, effective rank, modality gap, and retrieval rank of a post's own image.

Shapes: N posts, D latent width. All measures use unit vectors, so that none changes with the scale of a modality's
latents. A zero vector stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Cosines that differ by less count as equal, as latents are float32.
TIE = 1e-6


@dataclass(frozen=True)
class Geometry:
    """Measures of a latent space; NaN where undefined.

    Attributes:
        posts: number of posts measured.
        cosine_text, cosine_image: mean cosine between the latents of different posts; 1 is collapse.
        effective_rank_text, effective_rank_image: see `effective_rank`; from 1 to the smaller of N and D.
        gap: see `modality_gap`.
        pair_cosine: mean cosine of a post's text and image.
        own_image_rank: median rank of a post's own image; 1 is best.
        own_image_share: median of rank divided by number of candidates.
        candidates: median number of candidate images of a post's text, its own image included.
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
        image_ids: (N,) posts with the same id share their image; by default every post has a different image.

    Raises:
        ValueError: If text and image differ in shape.
    """

    def __init__(self, text: NDArray[Any], image: NDArray[Any], image_ids: NDArray[Any] | None = None) -> None:
        if np.shape(text) != np.shape(image):
            raise ValueError(f"text {np.shape(text)} and image {np.shape(image)} are not latents of the same posts")
        self.text = unit_vectors(text)
        self.image = unit_vectors(image)
        self.image_ids = np.arange(len(text)) if image_ids is None else image_ids

    @cached_property
    def ranks(self) -> tuple[Array, Array]:
        """Ranks and numbers of candidates among all posts; see `own_image_ranks`."""
        return own_image_ranks(self.text, self.image, self.image_ids)

    def geometry(self, members: NDArray[np.bool_] | None = None) -> Geometry:
        """Measure all posts, or those where `members` (N,) is True; candidates are always the images of all posts."""
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
    """Scale (N, D) vectors to length 1; zero vectors stay zero, and vectors that are not finite become NaN."""
    widened = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(widened, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        units: Array = np.divide(widened, norms, out=np.zeros_like(widened), where=norms != 0)
    return units


def mean_cosine(units: Array) -> float:
    """Return the mean cosine between (N, D) unit vectors of different rows; NaN for fewer than two rows."""
    count = len(units)
    if count < 2:
        return np.nan
    # All pairs without a loop: the square of the sum contains each pair twice, and each vector with itself.
    pairs = np.square(units.sum(axis=0)).sum() - np.square(units).sum()
    return float(pairs / (count * (count - 1)))


def effective_rank(vectors: Array) -> float:
    """Return exp of the entropy of the normalised singular values of an (N, D) matrix; NaN if it is zero or not finite.

    It is the effective number of directions of the vectors (Roy & Vetterli 2007, definition 1).
    """
    if not vectors.any() or not np.isfinite(vectors).all():
        return np.nan
    widths = np.linalg.svd(vectors, compute_uv=False)
    shares = widths / widths.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def modality_gap(text: Array, image: Array) -> float:
    """Return the distance of the centroids of two sets of unit vectors, 0 to 2 (Liang et al. 2022, section 2.1)."""
    return float(np.linalg.norm(text.mean(axis=0) - image.mean(axis=0))) if len(text) else np.nan


def own_image_ranks(text: Array, image: Array, image_ids: NDArray[Any]) -> tuple[Array, Array]:
    """Rank each post's own image among the images of other posts, by cosine with the post's text.

    Each modality is centred first, as the gap between them would otherwise dominate. Ties share the mean of their
    ranks. Posts with the same image are not each other's candidates.

    Args:
        text: (N, D) unit vectors.
        image: (N, D) unit vectors.
        image_ids: (N,) image ids, equal if posts share their image.

    Returns:
        Ranks (N,), from 1, and numbers of candidates (N,), each post's own image included.
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
    # Identical vectors leave only rounding errors, which have no meaningful direction.
    return unit_vectors(np.where(np.linalg.norm(centred, axis=1, keepdims=True) < TIE, 0.0, centred))


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else np.nan
