"""Families of timm image encoders, at tiny size, with crops and grids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from mmib.encoders.image import ImageEncoder, Regions
from mmib.export.folder import read_export, write_export
from mmib.export.model import TrainedModel

TRANSFORMER: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
WINDOWS: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 2}
STAGES: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
# {timm name: arguments that make it tiny}. Square and non-square images, with and without class token and registers,
# feature maps with channels first and last.
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 16)},
    "convnext_atto": STAGES,
    "convnextv2_atto": STAGES,
    "vit_tiny_patch16_224": TRANSFORMER,
    "vit_base_patch32_clip_224": TRANSFORMER | {"patch_size": 16, "img_size": (48, 96)},
    "vit_base_patch16_siglip_224": TRANSFORMER,
    "vit_base_patch16_siglip_gap_224": TRANSFORMER,
    "vit_small_patch14_dinov2": TRANSFORMER | {"img_size": 56},
    "vit_small_patch14_reg4_dinov2": TRANSFORMER | {"img_size": (70, 42)},
    "vit_small_patch16_dinov3": TRANSFORMER | {"img_size": (64, 96)},
    "eva02_tiny_patch14_224": TRANSFORMER | {"img_size": 56},
    "swin_tiny_patch4_window7_224": WINDOWS | {"img_size": (64, 128)},
    "swinv2_tiny_window8_256": WINDOWS | {"img_size": 64},
    "swinv2_cr_tiny_224": WINDOWS | {"img_size": 64},
    "convit_tiny": {"embed_dim": 16, "depth": 2, "num_heads": 2, "local_up_to_layer": 1, "img_size": 64},
    "hiera_tiny_224": {"embed_dim": 16, "stages": (1, 1, 1, 1)},
}
UNUSED_IN_GRID = {
    "convnext_atto": "head.norm.",
    "convnextv2_atto": "head.norm.",
    "vit_base_patch16_siglip_224": "attn_pool.",
    "eva02_tiny_patch14_224": "fc_norm.",
    "hiera_tiny_224": "head.norm.",
}
every_family = pytest.mark.parametrize("family", FAMILIES)
both_regions = pytest.mark.parametrize("regions", ["crops", "grid"])


def build(family: str, regions: Regions, **options: Any) -> ImageEncoder:
    return ImageEncoder(family, pretrained=False, regions=regions, model_args=FAMILIES[family], **options)


def images(encoder: ImageEncoder, count: int = 2) -> Tensor:
    return torch.randn(count, *encoder.input_size)


def cells(encoder: ImageEncoder) -> tuple[int, int]:
    """Rows and columns of timm's last feature map."""
    (feature_map,) = encoder.encoder.forward_intermediates(
        images(encoder, 1), indices=1, intermediates_only=True, output_fmt="NCHW"
    )
    return feature_map.shape[-2:]


@every_family
@both_regions
def test_frozen_features_match_timm_image_by_image(family: str, regions: Regions) -> None:
    encoder = build(family, regions)
    network, pixels = encoder.encoder, images(encoder)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    nn.Sequential(encoder).train()
    features = encoder(pixels)
    assert not features.requires_grad
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())

    boxes = encoder.region_boxes()
    assert features.shape == (2, len(boxes), encoder.dim)
    if regions == "crops":
        assert boxes == [(0, 0, 1, 1)]
        torch.testing.assert_close(features[:, 0], network(pixels))
    else:
        rows, columns = cells(encoder)
        assert boxes[0] == (0, 0, 1 / columns, 1 / rows)
        assert len(boxes) == rows * columns
        expected = network.forward_features(pixels)
        if expected.ndim == 3:
            expected = expected[:, -rows * columns :]
        elif expected.shape[1] == encoder.dim:
            expected = expected.movedim(1, -1)
        torch.testing.assert_close(features, expected.reshape(features.shape))
    torch.testing.assert_close(encoder(torch.cat([pixels[:1], 9 * images(encoder)]))[:1], features[:1])


@every_family
@both_regions
def test_one_backward_pass_gives_every_trained_parameter_a_gradient(family: str, regions: Regions) -> None:
    encoder = build(family, regions, frozen=False).train()
    assert all(module.training for module in encoder.modules())
    # Not the sum: after a layer norm it would be the same for any features.
    encoder(images(encoder)).square().sum().backward()
    without = {name for name, parameter in encoder.encoder.named_parameters() if parameter.grad is None}
    frozen = {name for name, parameter in encoder.encoder.named_parameters() if not parameter.requires_grad}
    assert without == frozen
    unused = UNUSED_IN_GRID.get(family) if regions == "grid" else None
    named = {name for name, _ in encoder.encoder.named_parameters() if unused and name.startswith(unused)}
    assert frozen == named
    assert bool(named) == bool(unused)


@every_family
@both_regions
def test_an_exported_encoder_gives_the_same_features(
    family: str, regions: Regions, make_trained: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    image = {"name": family, "regions": regions, "model_args": FAMILIES[family]}
    model = make_trained("mre", image=image, max_crops=0)
    write_export([model], tmp_path / "export")
    (read,) = read_export(tmp_path / "export")
    encoder, found = (one.network.backbone.image_encoder for one in (model, read))
    assert found.fingerprint() == encoder.fingerprint()
    assert found.region_boxes() == encoder.region_boxes()
    pixels = images(encoder)
    assert torch.equal(found(pixels), encoder(pixels))


@pytest.mark.parametrize("family", ["convnext_atto", "vit_base_patch16_siglip_224"])
def test_two_processes_train_without_find_unused_parameters(family: str, tmp_path: Path) -> None:
    start_processes(_train, (family, tmp_path), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(gradient.any() for gradient in first.values())


def _train(rank: int, family: str, folder: Path) -> None:
    """Two steps of one of two processes; the second fails if a parameter had no gradient in the first."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=2)
    encoder = build(family, "grid", frozen=False)
    network = DistributedDataParallel(encoder)
    torch.manual_seed(rank)
    for _ in range(2):
        network.zero_grad()
        network(images(encoder, 1)).square().sum().backward()
    gradients = {name: tensor.grad for name, tensor in encoder.named_parameters() if tensor.requires_grad}
    torch.save(gradients, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
