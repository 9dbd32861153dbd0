"""The relation classifier."""

from __future__ import annotations

from torch import Tensor, nn

from mmib.nn.precision import at_least_float32


class RelationHead(nn.Module):
    """Classifies relations from the concatenated fused states at the two opening markers.

    Args:
        dim: latent width D.
        relations: number C of relations.
        dropout: dropout on the concatenated states.
    """

    def __init__(self, dim: int, relations: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * dim, relations)

    def forward(self, states: Tensor) -> Tensor:
        """Map (B, 2, D) states of the opening markers of head and tail to logits (B, C)."""
        logits: Tensor = self.classifier(self.dropout(states.flatten(1)))
        return logits


def likeliest_relation(logits: Tensor, none: int, threshold: float | None = None) -> Tensor:
    """Return (B,) class ids: the most probable class or, with a threshold, the most probable relation above it.

    Args:
        logits: (B, C) logits of the classes.
        none: class id of no relation, predicted if no relation exceeds the threshold.
        threshold: probability that a relation must exceed.
    """
    if threshold is None:
        return logits.argmax(dim=-1)
    probabilities = at_least_float32(logits).softmax(dim=-1)
    probabilities[:, none] = threshold
    return probabilities.argmax(dim=-1)
