"""The attention block that both the variational encoders and the fusion are built from."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmib.nn.precision import at_least_float32, autocast_off
from mmib.schema import ConfigError

RESIDUAL_GAIN = 0.3


def start_small(layer: nn.Linear) -> None:
    """Make the layer's output small before training: Glorot's weights times `RESIDUAL_GAIN`."""
    nn.init.xavier_uniform_(layer.weight, gain=RESIDUAL_GAIN)
    nn.init.zeros_(layer.bias)


def start_as_similarity(*projections: nn.Linear) -> None:
    """Make the products of projected states those of the states themselves before training."""
    for projection in projections:
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)


class AttentionBlock(nn.Module):
    """Multi-head attention and a feed-forward layer, each with a residual on the query and a LayerNorm after it.

    `block(x, x, mask)` is self-attention; `block(query, context, mask)` is the paper's cross attention
    CA(query, context, context). A query whose keys are all masked gets zero from attention, with finite gradients,
    so that the block then passes on the query through its residual.

    Both residual branches start small: the block starts near the identity, up to its norms, so that pretrained states
    reach the head unharmed. Not at zero: the parameters of attention would get no gradient in the first step and little
    in those that follow, and a short training may not begin to use the image (docs/explanation/method.md). Attention
    starts as a similarity: with identities for query and key projections, a query attends to the states that resemble
    it, head by head. Words and regions whose latents the alignment has brought together therefore attend to each other
    from the first step on. (The value projection starts at random as usual.)

    Args:
        dim: width D of queries, context and output.
        heads: attention heads; must divide `dim`.
        dropout: on attention weights, on both residual branches.
        normalized: compute attention's weights from queries and keys as unit-variance vectors (a LayerNorm without
            parameters), so that they depend on the directions of states and not on their norms (Henry et al. 2020,
            query-key normalization). A bottleneck shrinks the norms of latents, and would flatten attention with them.

    Raises:
        ConfigError: `heads` does not divide `dim`.
    """

    def __init__(self, dim: int, heads: int = 12, dropout: float = 0.1, normalized: bool = False) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"{heads} attention heads do not divide the width {dim}: choose a divisor of {dim}")
        self.heads = heads
        self.dropout = dropout
        self.normalized = normalized
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        narrow = nn.Linear(4 * dim, dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), narrow)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.residual_dropout = nn.Dropout(dropout)
        start_as_similarity(self.query, self.key)
        start_small(self.output)
        start_small(narrow)

    def forward(self, query: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, D).
            context: (B, K, D), K at least 1.
            context_mask: (B, K) boolean, True = attend.

        Returns:
            (B, Q, D).
        """
        attended = self.residual_dropout(self._attend(query, context, context_mask))
        hidden = self.attention_norm(query + attended)
        output: Tensor = self.feed_forward_norm(hidden + self.residual_dropout(self.feed_forward(hidden)))
        return output

    @torch.no_grad()
    def weights(self, query: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """What the queries of `forward` attend to, without dropout: (B, Q, K), averaged over the heads.

        A query's weights add up to 1; they are 0 where masked, and all 0 where no key is valid.
        """
        queries, keys = self._queries(query), self._keys(context)
        products = queries @ keys.transpose(-2, -1)
        with autocast_off(products):
            scores = at_least_float32(products) / math.sqrt(query.shape[-1] // self.heads)
            weights = scores.masked_fill(~context_mask[:, None, None, :], -torch.inf).softmax(dim=-1)
            return weights.mean(dim=1).masked_fill(~context_mask[:, None, :], 0.0)

    def _attend(self, query: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        has_key = context_mask.any(dim=1, keepdim=True)
        # Softmax over no key at all is NaN: such rows attend to everything, and the result is discarded below.
        keys_seen = (context_mask | ~has_key)[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            self._queries(query),
            self._keys(context),
            self._split(self.value(context)),
            attn_mask=keys_seen,
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return merged.masked_fill(~has_key[:, :, None], 0.0)

    def _queries(self, states: Tensor) -> Tensor:
        return self._split(self.query(self._directions(states)))

    def _keys(self, states: Tensor) -> Tensor:
        return self._split(self.key(self._directions(states)))

    def _directions(self, states: Tensor) -> Tensor:
        return F.layer_norm(states, states.shape[-1:]) if self.normalized else states

    def _split(self, states: Tensor) -> Tensor:
        """(B, T, D) to (B, heads, T, D / heads)."""
        heads: Tensor = states.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)
