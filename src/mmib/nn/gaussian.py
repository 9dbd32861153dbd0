"""Variational encoding of a modality: a diagonal Gaussian for each position."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmib.nn.attention import AttentionBlock
from mmib.nn.precision import at_least_float32, autocast_off

LOG_VAR_RANGE = (-10.0, 5.0)
LOG_VAR_START = -3.0


class Posterior(NamedTuple):
    """q(z | x) = N(mean, diag(exp(log_var))) at each position.

    Attributes:
        mean: (B, T, D), at least float32.
        log_var: (B, T, D), at least float32, within `LOG_VAR_RANGE`.
        mask: (B, T) True on valid positions.
    """

    mean: Tensor
    log_var: Tensor
    mask: Tensor

    def rsample(self) -> Tensor:
        """Return a reparameterised sample, (B, T, D): mean + exp(log_var / 2) * eps."""
        return self.mean + torch.exp(0.5 * self.log_var) * torch.randn_like(self.mean)

    def kl(self, prior: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return KL(q(z|x) || r(z)) in nats per latent dimension, (B, T, D), zero where masked.

        The closed form for two Gaussians is (x^2 + v - 1 - log v) / 2, with x the mean in units of the prior and v the
        ratio of variances.

        Args:
            prior: mean and log-variance of r, of shapes that broadcast to (B, T, D); N(0, I) by default.
        """
        with autocast_off(self.mean):
            mean, log_var = self.mean, self.log_var
            if prior is not None:
                centre, log_scale = (at_least_float32(part) for part in prior)
                mean, log_var = (mean - centre) * torch.exp(-0.5 * log_scale), log_var - log_scale
            kl = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var)
            return kl.masked_fill(~self.mask[:, :, None], 0.0)


class GaussianEncoder(nn.Module):
    """Self-attention block and two linear heads, for mean and log-variance (paper: variational encoder).

    Neither head ends in a LayerNorm, which would fix the norm of the mean and so disable the bottleneck. The mean
    starts as the output of the block and the log-variance as -3, so that training begins from the pretrained states
    with little noise.

    Args:
        dim: width D of input and latent.
        heads: attention heads.
        dropout: dropout of the attention block.
    """

    def __init__(self, dim: int, heads: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.block = AttentionBlock(dim, heads, dropout)
        mean, log_var = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.eye_(mean.weight)
        nn.init.zeros_(mean.bias)
        nn.init.zeros_(log_var.weight)
        nn.init.constant_(log_var.bias, LOG_VAR_START)
        self.mean: nn.Module = mean
        self.log_var: nn.Module = log_var

    def forward(self, states: Tensor, mask: Tensor, context: tuple[Tensor, Tensor] | None = None) -> Posterior:
        """Return the posterior of each position.

        Args:
            states: (B, T, D) states of the positions.
            mask: (B, T) True on valid positions.
            context: other states (B, S, D) to attend to, and their (B, S) mask; by default the positions attend to each
                other.
        """
        hidden = self.block(states, *(context or (states, mask)))
        log_var = at_least_float32(self.log_var(hidden)).clamp(*LOG_VAR_RANGE)
        return Posterior(at_least_float32(self.mean(hidden)), log_var, mask)
