"""Image encoding: frozen means frozen, and regions lie where their boxes say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mmib.encoders.image import ImageEncoder
from mmib.encoders.pretrained import PACKAGED
from mmib.schema import ConfigError, EncoderError

Build = Callable[..., ImageEncoder]
PACKAGED_NAME = "pip:efficientnet-lite0"


def copy_of_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_state(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def batch_norms(module: torch.nn.Module) -> list[torch.nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_frozen_encoder_stays_in_evaluation_mode_and_keeps_its_statistics(make_image_encoder: Build) -> None:
    """Defect 7: a frozen ResNet in training mode overwrote its running statistics."""
    encoder = make_image_encoder()
    before = copy_of_state(encoder)
    torch.nn.Sequential(encoder).train()
    encoder(5 * torch.randn(4, 3, 32, 32) + 3)
    assert batch_norms(encoder)
    assert not any(module.training for module in encoder.modules())
    assert same_state(before, encoder.state_dict())


def test_frozen_features_do_not_depend_on_batch_mates(make_image_encoder: Build) -> None:
    """Defect 7: batch statistics made image 0 change with its neighbours."""
    encoder = make_image_encoder().train()
    picture = torch.randn(1, 3, 32, 32)
    alone = encoder(picture)
    for mates in (torch.zeros(3, 3, 32, 32), 10 * torch.randn(3, 3, 32, 32)):
        torch.testing.assert_close(encoder(torch.cat([picture, mates]))[:1], alone)


@pytest.mark.parametrize("pictures", [1, 4, 9])
def test_features_encoded_in_parts_are_those_of_one_pass(make_image_encoder: Build, pictures: int) -> None:
    encoder = make_image_encoder(regions="grid")
    pixels = torch.randn(pictures, 3, 32, 32)
    features = encoder.features(pixels)
    assert not features.requires_grad
    torch.testing.assert_close(features, encoder(pixels), rtol=1e-4, atol=1e-5)


def test_no_graph_is_built_through_a_frozen_encoder(make_image_encoder: Build) -> None:
    """Defect 9: the freeze matched no parameter."""
    encoder = make_image_encoder()
    features = encoder(torch.randn(2, 3, 32, 32, requires_grad=True))
    assert not features.requires_grad
    assert list(encoder.parameters())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_unfrozen_encoder_learns_and_updates_its_statistics(make_image_encoder: Build) -> None:
    """Defect 8: its features were always detached, so that tuning tuned nothing."""
    encoder = make_image_encoder(frozen=False).train()
    before = copy_of_state(encoder)
    encoder(torch.randn(4, 3, 32, 32)).square().sum().backward()
    missing = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    assert not same_state(before, encoder.state_dict())


def test_unfrozen_encoder_follows_the_mode(make_image_encoder: Build) -> None:
    encoder = make_image_encoder(frozen=False)
    assert all(module.training for module in encoder.train().modules())
    assert not any(module.training for module in encoder.eval().modules())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout", "test_efficientnet"])
@pytest.mark.parametrize("regions", ["crops", "grid"])
def test_features_have_the_promised_width_and_a_box_each(name: str, regions: str) -> None:
    encoder = ImageEncoder(name, pretrained=False, regions=regions)  # type: ignore[arg-type]
    features = encoder(torch.randn(2, *encoder.input_size))
    boxes = encoder.region_boxes()
    assert features.shape == (2, len(boxes), encoder.dim)
    assert (len(boxes) == 1) == (regions == "crops")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout"])
def test_region_that_changes_most_is_the_one_whose_box_was_painted(name: str) -> None:
    """Row by row, x before y: for channels first, channels last and token models."""
    encoder = ImageEncoder(name, pretrained=False, regions="grid")
    _, height, width = encoder.input_size
    boxes = encoder.region_boxes()
    side = round(len(boxes) ** 0.5)
    picture = torch.randn(1, 3, height, width)
    plain = encoder(picture)
    for row, column in ((0, side - 1), (side - 1, 0), (1, 2)):
        x0, y0, x1, y1 = boxes[row * side + column]
        painted = picture.clone()
        painted[:, :, round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = 3.0
        change = (encoder(painted) - plain).norm(dim=2)[0]
        assert divmod(int(change.argmax()), side) == (row, column)


def test_grid_regions_are_the_cells_of_the_feature_map_in_the_order_of_their_boxes(make_image_encoder: Build) -> None:
    encoder = make_image_encoder(regions="grid")
    pixels = torch.randn(2, *encoder.input_size)
    feature_map = encoder.encoder.forward_features(pixels)
    _, _, rows, columns = feature_map.shape
    features, boxes = encoder(pixels), encoder.region_boxes()
    assert len(boxes) == rows * columns
    for region, (x0, y0, x1, y1) in enumerate(boxes):
        row, column = round(y0 * rows), round(x0 * columns)
        assert torch.equal(features[:, region], feature_map[:, :, row, column])
        assert (x1 - x0, y1 - y0) == (pytest.approx(1 / columns), pytest.approx(1 / rows))
    assert boxes[0][:2] == (0, 0)
    assert boxes[-1][2:] == (1, 1)


def test_crops_are_one_region_of_the_whole_picture(make_image_encoder: Build) -> None:
    assert make_image_encoder(regions="crops").region_boxes() == [(0, 0, 1, 1)]


def test_asking_for_boxes_changes_neither_statistics_nor_mode(make_image_encoder: Build) -> None:
    """Defect 7 again: an empty picture in training mode moved the batch statistics of an unfrozen encoder."""
    encoder = make_image_encoder(frozen=False, regions="grid").train()
    before = copy_of_state(encoder)
    encoder.region_boxes()
    assert same_state(before, encoder.state_dict())
    assert all(module.training for module in encoder.modules())


def test_transform_is_the_models_own_for_pictures_of_any_kind_and_size(make_image_encoder: Build) -> None:
    encoder = make_image_encoder()
    for size in ((500, 20), (7, 9), (160, 160)):
        pixels = encoder.transform(Image.fromarray(np.full((*size, 3), 255, dtype=np.uint8)))
        assert pixels.shape == encoder.input_size
        # White, in the model's own normalisation: (1 - 0.5) / 0.5.
        torch.testing.assert_close(pixels, torch.ones(encoder.input_size))


def test_training_transform_is_random_and_the_other_is_not(make_image_encoder: Build) -> None:
    encoder = make_image_encoder()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 180, 3), dtype=np.uint8))
    assert torch.equal(encoder.transform(picture), encoder.transform(picture))
    assert not torch.equal(encoder.training_transform(picture), encoder.training_transform(picture))


def test_fingerprint_is_equal_exactly_where_features_are(make_image_encoder: Build) -> None:
    first, second = make_image_encoder(), make_image_encoder()
    assert first.fingerprint() != second.fingerprint()
    second.load_state_dict(first.state_dict())
    assert first.fingerprint() == second.fingerprint()
    grid = make_image_encoder(regions="grid")
    grid.load_state_dict(first.state_dict())
    assert grid.fingerprint() != first.fingerprint()
    next(b for name, b in second.named_buffers() if name.endswith("running_mean")).add_(1e-3)
    assert first.fingerprint() != second.fingerprint()


def test_a_subclass_has_a_fingerprint_of_its_own(make_image_encoder: Build) -> None:
    """It may compute other features from the same weights."""

    class Doubled(ImageEncoder):
        pass

    torch.manual_seed(0)
    plain = make_image_encoder()
    doubled = Doubled(plain.name, pretrained=False)
    doubled.load_state_dict(plain.state_dict())
    assert doubled.fingerprint() != plain.fingerprint()


def test_fingerprint_covers_the_transform(make_image_encoder: Build) -> None:
    encoder = make_image_encoder()
    before = encoder.fingerprint()
    encoder.transform.transforms[0].size = 99  # type: ignore[attr-defined]
    assert encoder.fingerprint() != before


def test_local_weights_are_loaded_without_their_classifier(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", pretrained=False)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = ImageEncoder("test_resnet", weights=str(tmp_path / "weights.pth"))
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.encoder.state_dict().items())


def test_missing_local_weights_are_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "weights.safetensors")
    with pytest.raises(EncoderError, match=r"image weights .*weights.safetensors' do not exist"):
        ImageEncoder("test_resnet", weights=missing)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_damaged_local_weights_are_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(EncoderError, match=r"cannot be read|do not fit"):
        ImageEncoder("test_resnet", weights=str(tmp_path / name))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match="weights of image encoder 'test_efficientnet' do not fit"):
        ImageEncoder("test_efficientnet", weights=str(tmp_path / "weights.pth"))


def test_unknown_model_is_named_with_close_ones() -> None:
    with pytest.raises(EncoderError, match=r"no image model 'resnet5000'.*for example: .*resnet"):
        ImageEncoder("resnet5000")


def test_unknown_kind_of_regions_is_refused_with_the_choices(make_image_encoder: Build) -> None:
    with pytest.raises(ConfigError, match=r"'patches' are unknown: choose 'crops' or 'grid'"):
        make_image_encoder(regions="patches")


def test_text_weights_are_no_image_encoder() -> None:
    pytest.importorskip(PACKAGED["pip:minilm-l6"].package, reason="the encoders extra is not installed")
    with pytest.raises(EncoderError, match="pip:minilm-l6 is not an image encoder"):
        ImageEncoder("pip:minilm-l6")


def test_packaged_efficientnet_lines_up_entry_by_entry() -> None:
    weights = PACKAGED[PACKAGED_NAME]
    package = pytest.importorskip(weights.package, reason="the encoders extra is not installed")
    encoder = ImageEncoder(PACKAGED_NAME)
    theirs = list(torch.load(Path(package.__file__).parent / weights.file, weights_only=True).values())
    ours = list(encoder.encoder.state_dict().values())
    # Theirs ends in the classifier's weight and bias, which the encoder has no use for.
    assert len(theirs) == 296
    assert len(ours) == 294
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=False))
    assert encoder.dim == 1280
    assert len(ImageEncoder(PACKAGED_NAME, regions="grid").region_boxes()) == 49


def test_packaged_name_without_pretraining_draws_its_weights() -> None:
    pytest.importorskip(PACKAGED[PACKAGED_NAME].package, reason="the encoders extra is not installed")
    drawn, loaded = ImageEncoder(PACKAGED_NAME, pretrained=False), ImageEncoder(PACKAGED_NAME)
    assert drawn.dim == loaded.dim
    assert drawn.fingerprint() != loaded.fingerprint()
