"""What latents say: the latent space. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmib.schema import RunError

Array = NDArray[np.float64]

# Columns of a latents file.
MODALITIES = ("text", "image")


@dataclass(frozen=True)
class LatentSpace:
    """The mean latents of N posts, as unit vectors, seen in the plane in which they vary most.

    Attributes:
        text, image: (N, 2) projections onto the first two principal components of both modalities together.
        explained: share of the variance that each of the two components holds.
        gap: distance of the two modalities' centres on the unit sphere, as `align/gap`.
        cosine: mean cosine of a post's text and image, as `align/cosine`.
    """

    text: Array
    image: Array
    explained: tuple[float, float]
    gap: float
    cosine: float


def latent_space(text: Array, image: Array) -> LatentSpace:
    """Project (N, D) mean latents of the same posts. Gap: Liang et al. 2022, section 2.1."""
    text, image = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (text, image))
    both = np.concatenate([text, image])
    centred = both - both.mean(axis=0)
    _, widths, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(both), 2))
    plane[:, : len(directions)] = centred @ directions[:2].T
    variance = widths**2 / max(float((widths**2).sum()), 1e-12)
    explained = [float(share) for share in variance[:2]] + [0.0, 0.0]
    return LatentSpace(
        plane[: len(text)],
        plane[len(text) :],
        (explained[0], explained[1]),
        float(np.linalg.norm(text.mean(axis=0) - image.mean(axis=0))),
        float((text * image).sum(axis=1).mean()),
    )


def read_latents(path: Path) -> LatentSpace | None:
    """The latent space that a file of a run holds; None where the run kept none, or kept that of no post.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - runs without latents need not load it
    from safetensors.numpy import load_file  # noqa: PLC0415

    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        text, image = (np.asarray(tensors[modality], dtype=np.float64) for modality in MODALITIES)
        return latent_space(text, image) if len(text) else None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} holds no latents of text and image: {error}") from error
