"""The released code's form of the bottleneck, and its defects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmib.released import LayerNormGaussianEncoder, MeanKL
from mmib.schema import ConfigError

Build = Callable[..., Any]
WIDTH = 12


def test_the_norm_of_the_mean_is_fixed() -> None:
    """Defect 3: for any parameters before the LayerNorm the mean costs the same, so no word can cost less."""
    encoder = LayerNormGaussianEncoder(WIDTH, heads=3, dropout=0.0)
    mask = torch.ones(4, 5, dtype=torch.bool)
    for scale in (0.1, 1.0, 10.0):
        with torch.no_grad():
            encoder.mean[0].weight.copy_(scale * torch.randn(WIDTH, WIDTH))
        q = encoder(torch.randn(4, 5, WIDTH), mask)
        torch.testing.assert_close(q.mean.square().mean(dim=2), torch.ones(4, 5), rtol=0.05, atol=0.0)


def test_its_kl_is_the_mean_over_padding_and_dimensions(make_module: Build, make_batch: Build) -> None:
    """Defect 5."""
    parts = {"gaussian": lambda dim: LayerNormGaussianEncoder(dim, heads=3, dropout=0.0)}
    regularizers = [MeanKL("text"), MeanKL("image", weight=0.5)]
    module = make_module(parts, beta_text=0.0, beta_image=0.0, regularizers=regularizers).eval()
    objective = module.objective(make_batch())
    for name, weight in (("text", 1.0), ("image", 0.5)):
        q = getattr(objective.output, name)
        expected = 0.5 * (q.mean.square() + q.log_var.exp() - 1 - q.log_var).mean()
        assert objective.terms[f"mean_kl_{name}"].item() == pytest.approx(weight * expected.item(), rel=1e-5)
        assert objective.terms[f"kl_{name}"].item() == 0.0


def test_levitated_markers_are_positions_of_the_mean_like_those_in_the_text(
    make_backbone: Build, make_batch: Build
) -> None:
    backbone, batch = make_backbone(text={"markers": "levitated"}).eval(), make_batch()
    batch = replace(batch, markers=torch.tensor([[[1, 1, 4, 4]]]).expand(len(batch), -1, -1))
    output = backbone(batch)
    term = MeanKL("text")(output, batch)
    whole = torch.ones_like(batch.text_mask)
    nats = torch.cat([output.text._replace(mask=whole).kl(), output.markers.kl()], dim=1)
    torch.testing.assert_close(term.sum, nats.mean(dim=(1, 2)).sum())
    assert MeanKL("image")(output, batch).count == len(batch)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose 'text' or 'image'"):
        MeanKL("words")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be negative"):
        MeanKL("text", weight=-1.0)
