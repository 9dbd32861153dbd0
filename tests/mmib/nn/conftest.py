"""Shared fixtures of tests of building blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmib.nn.alignment import Latents

Pad = Callable[[Latents, int], Latents]


@pytest.fixture
def pad() -> Pad:
    """Appends masked positions to latents, and fills all masked ones with large garbage."""

    def append(latents: Latents, count: int) -> Latents:
        size, _, width = latents.z.shape
        garbage = torch.where(latents.mask[:, :, None], latents.z, 100 * torch.randn(latents.z.shape))
        return Latents(
            torch.cat([garbage, 100 * torch.randn(size, count, width)], dim=1),
            torch.cat([latents.mask, torch.zeros(size, count, dtype=torch.bool)], dim=1),
        )

    return append
