"""The relation classifier."""

from __future__ import annotations

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

    def forward(self, states: Tensor) -> Tensor:
        """(B, 2, D) states of the opening markers of head and tail to logits (B, C)."""
        return self.classifier(self.dropout(states.flatten(1)))
