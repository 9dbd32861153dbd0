"""Image encoding: frozen encoders do not change, and regions match their boxes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from mmib.encoders.image import ImageEncoder
from mmib.encoders.pretrained import PACKAGED, weightless
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


def test_frozen_features_do_not_depend_on_the_other_images_of_a_batch(make_image_encoder: Build) -> None:
    """Defect 7: batch statistics made features depend on the other images."""
    encoder = make_image_encoder().train()
    picture = torch.randn(1, 3, 32, 32)
    alone = encoder(picture)
    for mates in (torch.zeros(3, 3, 32, 32), 10 * torch.randn(3, 3, 32, 32)):
        torch.testing.assert_close(encoder(torch.cat([picture, mates]))[:1], alone)


@pytest.mark.parametrize("pictures", [1, 4, 9])
def test_features_encoded_in_chunks_match_a_single_pass(make_image_encoder: Build, pictures: int) -> None:
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
    """Defect 8: its features were always detached, so it could not be fine-tuned."""
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
def test_features_have_the_declared_width_and_one_box_each(name: str, regions: str) -> None:
    encoder = ImageEncoder(name, pretrained=False, regions=regions)  # type: ignore[arg-type]
    features = encoder(torch.randn(2, *encoder.input_size))
    boxes = encoder.region_boxes()
    assert features.shape == (2, len(boxes), encoder.dim)
    assert (len(boxes) == 1) == (regions == "crops")


@pytest.mark.parametrize(
    ("name", "size"), [("test_resnet", 160), ("test_mambaout", 160), ("test_vit", (96, 160)), ("test_vit2", (160, 64))]
)
def test_a_painted_box_changes_its_own_region_most(name: str, size: int | tuple[int, int]) -> None:
    """Row by row, x before y: for channels first, channels last and tokens, non-square images and registers."""
    model_args = None if isinstance(size, int) else {"img_size": size}
    encoder = ImageEncoder(name, pretrained=False, regions="grid", model_args=model_args)
    _, height, width = encoder.input_size
    assert (height, width) == ((size, size) if isinstance(size, int) else size)
    boxes = encoder.region_boxes()
    columns = sum(y0 == 0 for _, y0, _, _ in boxes)
    rows = len(boxes) // columns
    picture = torch.randn(1, 3, height, width)
    plain = encoder(picture)
    for row, column in ((0, columns - 1), (rows - 1, 0), (1, 2)):
        x0, y0, x1, y1 = boxes[row * columns + column]
        painted = picture.clone()
        painted[:, :, round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = 3.0
        change = (encoder(painted) - plain).norm(dim=2)[0]
        assert divmod(int(change.argmax()), columns) == (row, column)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("volo_d1_224", r"the 197 features .* of 224 x 224 are no grid of cells: use regions: crops"),
        ("crossvit_tiny_240", r"crossvit_tiny_240 has no single last feature map: use regions: crops"),
    ],
)
def test_a_model_without_a_grid_is_refused(name: str, message: str) -> None:
    with weightless():
        assert ImageEncoder(name, pretrained=False).region_boxes() == [(0, 0, 1, 1)]
        with pytest.raises(EncoderError, match=message):
            ImageEncoder(name, pretrained=False, regions="grid")


def test_grid_regions_are_the_cells_of_the_feature_map_in_box_order(make_image_encoder: Build) -> None:
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


def test_crops_have_one_region_for_the_whole_image(make_image_encoder: Build) -> None:
    assert make_image_encoder(regions="crops").region_boxes() == [(0, 0, 1, 1)]


def test_computing_boxes_changes_neither_statistics_nor_mode(make_image_encoder: Build) -> None:
    """Defect 7: an empty image in training mode changed the batch statistics of an unfrozen encoder."""
    encoder = make_image_encoder(frozen=False, regions="grid").train()
    before = copy_of_state(encoder)
    encoder.region_boxes()
    assert same_state(before, encoder.state_dict())
    assert all(module.training for module in encoder.modules())


def test_the_transform_is_the_models_for_images_of_any_mode_and_size(make_image_encoder: Build) -> None:
    encoder = make_image_encoder()
    for size in ((500, 20), (7, 9), (160, 160)):
        pixels = encoder.transform(Image.fromarray(np.full((*size, 3), 255, dtype=np.uint8)))
        assert pixels.shape == encoder.input_size
        # White in the model's normalisation: (1 - 0.5) / 0.5.
        torch.testing.assert_close(pixels, torch.ones(encoder.input_size))


def test_only_the_training_transform_is_random(make_image_encoder: Build) -> None:
    encoder = make_image_encoder()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 180, 3), dtype=np.uint8))
    assert torch.equal(encoder.transform(picture), encoder.transform(picture))
    assert not torch.equal(encoder.training_transform(picture), encoder.training_transform(picture))


def test_fingerprints_are_equal_exactly_if_features_are(make_image_encoder: Build) -> None:
    first, second = make_image_encoder(), make_image_encoder()
    assert first.fingerprint() != second.fingerprint()
    second.load_state_dict(first.state_dict())
    assert first.fingerprint() == second.fingerprint()
    grid = make_image_encoder(regions="grid")
    grid.load_state_dict(first.state_dict())
    assert grid.fingerprint() != first.fingerprint()
    next(b for name, b in second.named_buffers() if name.endswith("running_mean")).add_(1e-3)
    assert first.fingerprint() != second.fingerprint()


def test_a_subclass_has_a_different_fingerprint(make_image_encoder: Build) -> None:
    """A subclass may compute other features from the same weights."""

    class Doubled(ImageEncoder):
        pass

    torch.manual_seed(0)
    plain = make_image_encoder()
    doubled = Doubled(plain.name, pretrained=False)
    doubled.load_state_dict(plain.state_dict())
    assert doubled.fingerprint() != plain.fingerprint()


def test_an_edited_subclass_has_a_different_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same name, weights and transform, its features differ."""
    cell = (
        "class Pooled(ImageEncoder):\n    def forward(self, pixels):\n        return self.encoder(pixels).amax(dim=1)"
    )
    notebook = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", notebook)
    fingerprints = []
    for source in (cell, cell, cell.replace("amax", "mean")):
        vars(notebook)["ImageEncoder"] = ImageEncoder
        exec(source, vars(notebook))
        torch.manual_seed(0)
        fingerprints.append(notebook.Pooled("test_resnet", pretrained=False).fingerprint())
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_the_fingerprint_includes_the_transform(make_image_encoder: Build) -> None:
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
@pytest.mark.parametrize("size", [0, 9, 5000])
def test_damaged_local_weights_are_one_clear_error(tmp_path: Path, name: str, size: int) -> None:
    state = timm.create_model("test_resnet").state_dict()
    save = safetensors.torch.save_file if name.endswith(".safetensors") else torch.save
    save(state, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
    with pytest.raises(
        EncoderError, match=rf"^the image weights '.*{name}' cannot be read as those of test_resnet .*$"
    ):
        ImageEncoder("test_resnet", weights=str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_efficientnet", r"size mismatch for bn1"),
        # With other names timm would silently keep the network's random weights.
        ("test_vit", r"they lack 78 of its 78 tensors, for example cls_token$"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(EncoderError, match=rf"^the image weights '.*weights.pth' do not fit {name}: {reason}"):
        ImageEncoder(name, weights=str(tmp_path / "weights.pth"))
    assert not caplog.records


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5000", r"no image model 'resnet5000'; it has for example: .*resnet50"),
        ("resnet50.a1_in2k", r"no weights 'a1_in2k' of resnet50; it has: resnet50.a1_in1k, .* and \d+ more$"),
        ("timm/resnet50", r"no image model 'timm/resnet50': write hf-hub:OWNER/NAME for .* hub, local-dir:PATH for"),
        ("hub:timm/resnet50", r"no image model 'hub:timm/resnet50': write hf-hub:OWNER/NAME"),
    ],
)
def test_an_unknown_timm_name_is_not_requested_from_the_hub(name: str, message: str, pretrained: bool) -> None:
    with pytest.raises(EncoderError, match=f"^timm has {message}"):
        ImageEncoder(name, pretrained=pretrained)


@pytest.fixture
def timm_folder(tmp_path: Path) -> Path:
    """A vision transformer whose input size differs from its architecture's default, as saved by timm for the Hub."""
    network = timm.create_model("test_vit", img_size=(64, 96), num_classes=0)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "model.safetensors")
    pretrained = {"input_size": [3, 160, 160], "fixed_input_size": True, "num_classes": 0, "mean": [0.1, 0.2, 0.3]}
    config = {"architecture": "test_vit", "model_args": {"img_size": [64, 96]}, "pretrained_cfg": pretrained}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_a_timm_folder_is_built_as_saved(timm_folder: Path) -> None:
    encoder = ImageEncoder(f"local-dir:{timm_folder}", regions="grid")
    expected = safetensors.torch.load_file(timm_folder / "model.safetensors")
    assert same_state(encoder.encoder.state_dict(), expected)
    assert encoder.architecture == "test_vit"
    assert encoder.model_args == {"img_size": [64, 96]}
    assert encoder.input_size == (3, 64, 96)
    assert encoder.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert len(encoder.region_boxes()) == 4 * 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"cannot be built \(FileNotFoundError: .*config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"cannot be built \(JSONDecodeError: "),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'),
            r"no timm model: .* 'architecture'",
        ),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"cannot be built \(RuntimeError: No suitable checkpoint",
        ),
        (
            lambda folder: safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "model.safetensors"),
            r'do not fit .*: Missing key\(s\) in state_dict: "cls_token"',
        ),
    ],
)
def test_a_folder_without_a_complete_model_is_refused(
    timm_folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(timm_folder)
    with pytest.raises(EncoderError, match=rf"local-dir:{timm_folder}\b.* {message}"):
        ImageEncoder(f"local-dir:{timm_folder}")


def test_names_with_included_weights_accept_no_others(timm_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"local-dir:.* comes with weights: leave out 'more.pth'"):
        ImageEncoder(f"local-dir:{timm_folder}", weights="more.pth")


@pytest.mark.parametrize("weights", [None, "weights.pth"])
def test_arguments_not_accepted_by_a_network_are_named(tmp_path: Path, weights: str | None) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    file = None if weights is None else str(tmp_path / weights)
    with pytest.raises(EncoderError, match=r"'test_resnet' cannot be built with model_args .*img_size.* \(TypeError: "):
        ImageEncoder("test_resnet", weights=file, pretrained=False, model_args={"img_size": 64})


def test_unknown_regions_are_refused_with_the_choices(make_image_encoder: Build) -> None:
    with pytest.raises(ConfigError, match=r"'patches' are unknown: choose 'crops' or 'grid'"):
        make_image_encoder(regions="patches")


def test_text_encoder_weights_are_no_image_encoder() -> None:
    pytest.importorskip(PACKAGED["pip:minilm-l6"].package, reason="the encoders extra is not installed")
    with pytest.raises(EncoderError, match="pip:minilm-l6 is not an image encoder"):
        ImageEncoder("pip:minilm-l6")


def test_packaged_efficientnet_weights_match_entry_by_entry() -> None:
    weights = PACKAGED[PACKAGED_NAME]
    package = pytest.importorskip(weights.package, reason="the encoders extra is not installed")
    encoder = ImageEncoder(PACKAGED_NAME)
    theirs = list(torch.load(Path(package.__file__).parent / weights.file, weights_only=True).values())
    ours = list(encoder.encoder.state_dict().values())
    # The packaged weights end with a classifier's weight and bias, which the encoder does not use.
    assert len(theirs) == 296
    assert len(ours) == 294
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=False))
    assert encoder.dim == 1280
    assert len(ImageEncoder(PACKAGED_NAME, regions="grid").region_boxes()) == 49


def test_a_packaged_name_without_pretraining_is_initialised_randomly() -> None:
    pytest.importorskip(PACKAGED[PACKAGED_NAME].package, reason="the encoders extra is not installed")
    drawn, loaded = ImageEncoder(PACKAGED_NAME, pretrained=False), ImageEncoder(PACKAGED_NAME)
    assert drawn.dim == loaded.dim
    assert drawn.fingerprint() != loaded.fingerprint()
