"""Priors r(z) of the bottleneck, relative to which rates are measured."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mmib.nn.alignment import Latents
from mmib.nn.gaussian import LOG_VAR_RANGE, Posterior
from mmib.nn.precision import at_least_float32


class Prior(nn.Module, ABC):
    """Base of priors. The first constructor argument of a subclass is the latent width D.

    For any prior the rate KL(q(z|x) || r(z)), averaged over the data, is an upper bound on the information that the
    latents hold about their input (Alemi et al. 2018, section 2). With a prior that depends on the text, it bounds the
    information of the image's latents beyond the text, I(X_v; Z_v | Z_t).

    Attributes:
        needs_text: whether the prior depends on the text latents; allowed for the image's prior only.
    """

    needs_text = False

    @abstractmethod
    def forward(self, posterior: Posterior, text: Latents) -> Tensor:
        """Return the KL of a posterior to the prior in nats per latent dimension, (B, T, D), zero where masked.

        Args:
            posterior: posterior of the modality, (B, T, D).
            text: latents of the posts' word pieces, z (B, L, D).
        """


class StandardPrior(Prior):
    """N(0, I), the paper's prior.

    Args:
        dim: latent width D.
    """

    def __init__(self, dim: int) -> None:
        del dim  # it has no parameters
        super().__init__()

    def forward(self, posterior: Posterior, text: Latents) -> Tensor:
        """See `Prior.forward`."""
        return posterior.kl()


class LearntPrior(Prior):
    """A Gaussian with a learnt mean and variance for each latent dimension; it starts as N(0, I).

    Args:
        dim: latent width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_var = nn.Parameter(torch.zeros(dim))

    def forward(self, posterior: Posterior, text: Latents) -> Tensor:
        """See `Prior.forward`."""
        return posterior.kl((self.mean, self.log_var.clamp(*LOG_VAR_RANGE)))


class TextConditionalPrior(Prior):
    """r(z_v | text) of the image's latents: a Gaussian that a small network predicts from the mean text latents.

    It penalises only content of the image that the text does not predict, while N(0, I) penalises all content alike (a
    conditional entropy bottleneck, Fischer 2020, conditioned on the text). All regions of a post have the same prior,
    which starts as N(0, I).

    Args:
        dim: latent width D.
    """

    needs_text = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.parameters_of_text = nn.Linear(dim, 2 * dim)
        nn.init.zeros_(self.parameters_of_text.weight)
        nn.init.zeros_(self.parameters_of_text.bias)

    def forward(self, posterior: Posterior, text: Latents) -> Tensor:
        """See `Prior.forward`."""
        hidden = self.hidden(text.post_mean().to(self.parameters_of_text.weight.dtype))
        mean, log_var = at_least_float32(self.parameters_of_text(hidden))[:, None, :].chunk(2, dim=-1)
        return posterior.kl((mean, log_var.clamp(*LOG_VAR_RANGE)))
