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
        posts: how many at most; 0 collects none.

    Attributes:
        rows: those of the posts in the split.

    Raises:
        ConfigError: a negative number.
    """

    def __init__(self, posts: int) -> None:
        if posts < 0:
            raise ConfigError(f"latents cannot be kept of {posts} posts: give 0 or more")
        self.posts = posts
        self.rows: list[int] = []
        self._chosen = torch.empty(0, dtype=torch.long)
        self._parts: list[dict[str, Tensor]] = []

    def start(self, trainer: pl.Trainer) -> None:
        """Forget what has been collected, and choose among the posts of the trainer's data module."""
        self.rows = cast(Any, trainer).datamodule.val_sample(self.posts) if self.posts else []
        self._chosen = torch.tensor(self.rows, dtype=torch.long)
        self._parts = []

    def add(self, batch: PostBatch, output: BackboneOutput) -> None:
        """Collect those posts of a batch that were chosen."""
        chosen = torch.isin(batch.rows, self._chosen.to(batch.rows.device))
        found = {
            "rows": batch.rows,
            "image_ids": batch.image_ids,
            "text": at_least_float32(output.text_latents.post_mean()),
            "image": at_least_float32(output.image_latents.post_mean()),
        }
        self._parts.append({key: tensor[chosen].cpu() for key, tensor in found.items()})

    def gathered(self) -> dict[str, Tensor]:
        """What all ranks have collected, and forget it; every rank must call this.

        Returns:
            In order of row: `rows` and `image_ids` (N,), `text` and `image` (N, D), means over a post's word pieces or
            regions of what the backbone gives, which in evaluation are the posteriors' means. Nothing where none of the
            posts was in a batch.
        """
        parts = [part for kept in gather_objects(self._parts) for part in kept if len(part["rows"])]
        self._parts = []
        if not parts:
            return {}
        tensors = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        order = tensors["rows"].argsort()
        return {key: tensor[order] for key, tensor in tensors.items()}
