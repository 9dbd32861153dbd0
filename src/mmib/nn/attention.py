"""The attention block used by the variational encoders and the fusion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmib.nn.precision import at_least_float32, autocast_off
from mmib.schema import ConfigError

RESIDUAL_GAIN = 0.3


def start_small(layer: nn.Linear) -> None:
    """Initialise a layer for small outputs: Glorot's weights times `RESIDUAL_GAIN`."""
    nn.init.xavier_uniform_(layer.weight, gain=RESIDUAL_GAIN)
    nn.init.zeros_(layer.bias)


def start_as_similarity(*projections: nn.Linear) -> None:
    """Initialise projections as identities, so that products of projected states equal those of the states."""
    for projection in projections:
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)


class AttentionBlock(nn.Module):
    """Multi-head attention and a feed-forward layer, each with a residual connection followed by a LayerNorm.

    `block(x, x, mask)` is self-attention; `block(query, context, mask)` is the paper's cross attention
    CA(query, context, context). If all keys of a query are masked, its attention output is zero, with finite gradients,
    and the query passes through the residual.

    Both residual branches start small, so that the block starts near the identity, up to its norms, and pretrained
    states reach the head intact. They do not start at zero: the attention parameters would get no gradient in the first
    step and little in the following ones, and a short training might never use the image
    (docs/explanation/method.md). Query and key projections start as identities, so that a query attends to the states
    that resemble it, head by head. Words and regions that the alignment has brought together therefore attend to each
    other from the first step on. The value projection has the usual random initialisation.

    Args:
        dim: width D of queries, context and output.
        heads: attention heads; must divide `dim`.
        dropout: dropout on attention weights, and on both residual branches.
        normalized: apply a LayerNorm without parameters to the inputs of the query and key projections, so that
            attention weights depend on the directions of states and not on their norms (Henry et al. 2020, query-key
            normalization). A bottleneck shrinks the norms of latents, which would otherwise flatten attention.

    Raises:
        ConfigError: If `heads` does not divide `dim`.
    """

    def __init__(self, dim: int, heads: int = 12, dropout: float = 0.1, normalized: bool = False) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"{heads} attention heads do not divide the width {dim}: set heads to a divisor of {dim}")
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
        """Attend from queries to a context.

        Args:
            query: (B, Q, D) queries.
            context: (B, K, D) states to attend to, K at least 1.
            context_mask: (B, K) boolean, True = attend.

        Returns:
            (B, Q, D) states of the queries.
        """
        attended = self.residual_dropout(self._attend(query, context, context_mask))
        hidden = self.attention_norm(query + attended)
        output: Tensor = self.feed_forward_norm(hidden + self.residual_dropout(self.feed_forward(hidden)))
        return output

    @torch.no_grad()
    def weights(self, query: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Return the attention weights of `forward`, without dropout: (B, Q, K), averaged over the heads.

        A query's weights sum to 1. They are 0 where masked, and all 0 if no key is valid.
        """
        queries, keys = self._queries(query), self._keys(context)
        products = queries @ keys.transpose(-2, -1)
        with autocast_off(products):
            scores = at_least_float32(products) / math.sqrt(query.shape[-1] // self.heads)
            weights = scores.masked_fill(~context_mask[:, None, None, :], -torch.inf).softmax(dim=-1)
            return weights.mean(dim=1).masked_fill(~context_mask[:, None, :], 0.0)

    def _attend(self, query: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        has_key = context_mask.any(dim=1, keepdim=True)
        # A softmax over no key is NaN: such rows attend to everything, and the result is discarded below.
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
        """Reshape (B, T, D) to (B, heads, T, D / heads)."""
        heads: Tensor = states.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)
