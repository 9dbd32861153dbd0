"""Priors r(z) of the bottleneck: what the rate of a modality is measured against."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mmib.nn.alignment import Latents
from mmib.nn.gaussian import LOG_VAR_RANGE, Posterior
from mmib.nn.precision import at_least_float32


class Prior(nn.Module, ABC):
    """Base of priors. The constructor of a subclass takes the latent width D first.

    Whatever the prior is, the rate KL(q(z|x) || r(z)), averaged over the data, bounds the information that the
    latents hold about their input from above (Alemi et al. 2018, section 2). A prior that depends on the text bounds
    what the image's latents hold beyond it, I(X_v; Z_v | Z_t).

    Attributes:
        needs_text: whether the prior depends on the text latents. Only the image's may.
    """

    needs_text = False

    @abstractmethod
    def forward(self, posterior: Posterior, text: Latents) -> Tensor:
        """KL of a posterior to the prior in nats, (B, T, D): a value a latent dimension, zero where masked.

        Args:
            posterior: of the modality, (B, T, D).
            text: latents of the posts' word pieces, z (B, L, D).
        """


class StandardPrior(Prior):
    """N(0, I), the paper's.

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
    """A Gaussian with a mean and a variance for each latent dimension that are trained; it starts as N(0, I).

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
    """r(z_v | text) of the image's latents: a Gaussian that a small network reads off the mean of the text latents.

    Only what the text does not tell is taxed, while N(0, I) taxes all content of an image alike (a conditional
    entropy bottleneck, Fischer 2020, with the text as condition). All regions of a post have the same prior. It starts
    as N(0, I).

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
