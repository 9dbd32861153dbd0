"""The relation classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RelationHead(nn.Module):
    """Fused states at the two opening markers, concatenated, to relation logits.

    Args:
        dim: latent width D.
        relations: number C of relations.
        dropout: on the concatenated states.
    """

    def __init__(self, dim: int, relations: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * dim, relations)

    def forward(self, states: Tensor, head_index: Tensor, tail_index: Tensor) -> Tensor:
        """States (B, L, D) and the (B,) positions of the opening markers to logits (B, C)."""
        rows = torch.arange(len(states), device=states.device)
        pair = torch.cat([states[rows, head_index], states[rows, tail_index]], dim=-1)
        return self.classifier(self.dropout(pair))
