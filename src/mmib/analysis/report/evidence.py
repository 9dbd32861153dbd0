"""The latent space of a run, as numbers; charts are drawn elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmib.geometry import Geometry, PairedLatents
from mmib.schema import RunError

Array = NDArray[np.float64]

# Minimum number of posts of a label to compute its geometry.
FEWEST = 2


@dataclass(frozen=True)
class LatentSpace:
    """Mean latents of N posts, as unit vectors, projected onto the plane in which they vary most.

    Attributes:
        text, image: (N, 2) projections onto the first two principal components of both modalities together.
        explained: share of the variance that each of the two components explains.
        geometry: measures of the latent space.
        by_label: the same for the posts of each label, by label name; empty if the file has no labels.
    """

    text: Array
    image: Array
    explained: tuple[float, float]
    geometry: Geometry
    by_label: dict[str, Geometry] = field(default_factory=dict)


def latent_space(latents: PairedLatents) -> LatentSpace:
    """Project the latents of one or more posts."""
    both = np.concatenate([latents.text, latents.image])
    centred = both - both.mean(axis=0)
    _, widths, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(both), 2))
    plane[:, : len(directions)] = centred @ directions[:2].T
    variance = widths**2 / max(float((widths**2).sum()), 1e-12)
    explained = [float(share) for share in variance[:2]] + [0.0, 0.0]
    posts = len(latents.text)
    return LatentSpace(plane[:posts], plane[posts:], (explained[0], explained[1]), latents.geometry())


def read_latents(path: Path, labels: Sequence[str]) -> LatentSpace | None:
    """Read the latent space of a run; None without a file, without posts, or if a latent is not finite.

    Args:
        path: path of the file. Files of version 0.1 record neither which posts share an image nor their labels.
        labels: names of the run's label set.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - runs without latents need not load it
    from safetensors.numpy import load_file  # noqa: PLC0415

    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        latents = PairedLatents(tensors["text"], tensors["image"], tensors.get("image_ids"))
        if not len(latents.text) or not (np.isfinite(latents.text).all() and np.isfinite(latents.image).all()):
            return None
        space = latent_space(latents)
        if "labels" in tensors:
            members = zip(labels, tensors["labels"].astype(bool).T, strict=True)
            space.by_label.update({name: latents.geometry(own) for name, own in members if own.sum() >= FEWEST})
        return space
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise RunError(f"{path} holds no latents of text and image: {error}") from error
