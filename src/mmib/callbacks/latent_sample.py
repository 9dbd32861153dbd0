"""Mean latents of a sample of validation posts, gathered over all ranks."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from mmib.backbone import BackboneOutput
from mmib.base.distributed import gather_objects
from mmib.nn.precision import at_least_float32
from mmib.schema import ConfigError, PostBatch


class LatentSample:
    """Collects the latents of up to `posts` validation posts with an image, spread evenly over the split.

    Args:
        posts: maximum number of posts; 0 collects none.

    Attributes:
        rows: rows of the posts in the split.

    Raises:
        ConfigError: If `posts` is negative.
    """

    def __init__(self, posts: int) -> None:
        if posts < 0:
            raise ConfigError(f"latents cannot be kept of {posts} posts: give 0 or more")
        self.posts = posts
        self.rows: list[int] = []
        self._chosen = torch.empty(0, dtype=torch.long)
        self._parts: list[dict[str, Tensor]] = []

    def start(self, trainer: pl.Trainer) -> None:
        """Clear the sample, and choose posts of the trainer's data module."""
        self.rows = cast(Any, trainer).datamodule.val_sample(self.posts) if self.posts else []
        self._chosen = torch.tensor(self.rows, dtype=torch.long)
        self._parts = []

    def add(self, batch: PostBatch, output: BackboneOutput) -> None:
        """Collect the chosen posts of a batch."""
        chosen = torch.isin(batch.rows, self._chosen.to(batch.rows.device))
        found = {
            "rows": batch.rows,
            "image_ids": batch.image_ids,
            "text": at_least_float32(output.text_latents.post_mean()),
            "image": at_least_float32(output.image_latents.post_mean()),
        }
        self._parts.append({key: tensor[chosen].cpu() for key, tensor in found.items()})

    def gathered(self) -> dict[str, Tensor]:
        """Gather the sample from all ranks, and clear it; every rank must call this.

        Returns:
            In order of row: `rows` and `image_ids` (N,), and `text` and `image` (N, D), the backbone's latents (the
            posteriors' means in evaluation) averaged over a post's word pieces or regions. Empty if no chosen post was
            in a batch.
        """
        parts = [part for kept in gather_objects(self._parts) for part in kept if len(part["rows"])]
        self._parts = []
        if not parts:
            return {}
        tensors = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        order = tensors["rows"].argsort()
        return {key: tensor[order] for key, tensor in tensors.items()}
