"""The bottleneck of the authors' released code, for comparison; used only if a configuration names it.

Its variational encoder ends both heads in a LayerNorm, which fixes the norm of the mean, and its KL is a mean over
everything, padding and latent dimensions included. To use it, set both betas to 0, `gaussian` to
`LayerNormGaussianEncoder` and `alignment` to `mmib.nn.alignment.JSDAlignment`, and add a `MeanKL` of each modality to
`regularizers` (`experiments/ablations/released.yaml`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmib.backbone import BackboneOutput, Regularizer
from mmib.information import LossTerm
from mmib.nn.gaussian import GaussianEncoder, Posterior
from mmib.nn.precision import autocast_off
from mmib.schema import ConfigError, PostBatch


class LayerNormGaussianEncoder(GaussianEncoder):
    """A Gaussian encoder whose mean and log-variance are outputs of a LayerNorm.

    Args:
        dim: width D of input and latent.
        heads: attention heads.
        dropout: dropout of the attention block.
    """

    def __init__(self, dim: int, heads: int = 12, dropout: float = 0.1) -> None:
        super().__init__(dim, heads, dropout)
        self.mean = nn.Sequential(self.mean, nn.LayerNorm(dim))
        self.log_var = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))


class MeanKL(Regularizer):
    """The KL of a modality to N(0, I) as a mean over posts, positions (padding included), and latent dimensions.

    Args:
        modality: `text` or `image`.
        weight: factor in the objective; 1 in the released code.

    Raises:
        ConfigError: If the modality is unknown, or the weight is negative.
    """

    def __init__(self, modality: Literal["text", "image"], weight: float = 1.0) -> None:
        super().__init__()
        if modality not in ("text", "image"):
            raise ConfigError(f"the modality {modality!r} of MeanKL is unknown: choose 'text' or 'image'")
        if weight < 0:
            raise ConfigError(f"the weight of MeanKL is {weight}: it cannot be negative")
        self.modality = modality
        self.weight = weight

    def forward(self, output: BackboneOutput, batch: PostBatch) -> LossTerm:
        """See `Regularizer.forward`."""
        posterior: Posterior = getattr(output, self.modality)
        if self.modality == "text" and output.markers is not None:  # markers count as text
            posterior = Posterior(*(torch.cat(both, dim=1) for both in zip(posterior, output.markers, strict=True)))
        with autocast_off(posterior.mean):
            kl: Tensor = posterior._replace(mask=batch.valid[:, None].expand_as(posterior.mask)).kl()
        return LossTerm(
            name=f"mean_kl_{self.modality}",
            sum=kl.mean(dim=(1, 2)).sum(),
            count=batch.valid.sum(),
            weight=self.weight,
        )
