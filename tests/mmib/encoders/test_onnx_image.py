"""Image encoders in onnxruntime: features of PyTorch, complete ONNX files, and one-sentence errors."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmib.base.files import user_cache
from mmib.encoders import onnx_image
from mmib.encoders.image import ImageEncoder
from mmib.schema import ConfigError, EncoderError

Build = Callable[..., ImageEncoder]
# Exporting takes seconds, and encoders of one architecture have the same weights in these tests.
EXPORTED: dict[str, bytes] = {}
EXPORT = onnx_image.exported


class Exports:
    """A stub of the exporter that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, encoder: ImageEncoder, *arguments: Any) -> bytes:
        self.count += 1
        if encoder.name not in EXPORTED:
            EXPORTED[encoder.name] = EXPORT(encoder, *arguments)
        return EXPORTED[encoder.name]


@pytest.fixture(autouse=True)
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stand_in = Exports()
    monkeypatch.setattr(onnx_image, "exported", stand_in)
    return stand_in


def files() -> list[Path]:
    return sorted((user_cache() / "onnx").glob("*.onnx"))


@pytest.mark.parametrize(("name", "regions"), [("test_resnet", "crops"), ("test_vit", "grid")])
def test_features_and_fingerprint_match_pytorch(name: str, regions: str) -> None:
    encoder = ImageEncoder(name, pretrained=False, regions=regions, runtime="onnx")
    pixels = torch.randn(9, *encoder.input_size)
    fingerprint, features = encoder.fingerprint(), encoder.features(pixels)
    encoder.run_by("torch")
    expected = encoder.features(pixels)
    assert features.shape == expected.shape
    assert (features - expected).norm() <= 1e-3 * expected.norm()
    assert encoder.fingerprint() == fingerprint
    assert len(files()) == 1


def test_equal_encoders_share_a_file_that_is_rewritten_only_if_damaged(
    make_image_encoder: Build, exports: Exports
) -> None:
    encoder = make_image_encoder(runtime="onnx")
    pixels = torch.randn(2, *encoder.input_size)
    threads = [threading.Thread(target=copy.deepcopy(encoder).features, args=(pixels,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    features = encoder.features(pixels)
    torch.testing.assert_close(pickle.loads(pickle.dumps(encoder)).features(pixels), features)
    assert exports.count == 1
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    torch.testing.assert_close(anew(encoder).features(pixels), features)
    assert exports.count == 2
    assert file.read_bytes() == whole
    other = anew(encoder)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    with pytest.raises(EncoderError, match="other features in onnxruntime"):  # than the stub's
        other.features(pixels)
    assert exports.count == 3


def anew(encoder: ImageEncoder) -> ImageEncoder:
    """The same encoder before it has searched for its file."""
    other = copy.deepcopy(encoder)
    vars(other).pop("_onnx_file", None)
    onnx_image._session.cache_clear()
    return other


def test_encoders_that_cannot_run_are_refused_in_one_sentence(
    make_image_encoder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="frozen image encoders alone"):
        make_image_encoder(runtime="onnx", frozen=False)
    with pytest.raises(ConfigError, match="'tensorrt' is unknown: choose 'torch' or 'onnx'"):
        make_image_encoder(runtime="tensorrt")
    encoder = make_image_encoder(runtime="onnx")
    pixels = torch.randn(1, *encoder.input_size)
    monkeypatch.setattr(onnx_image, "TOLERANCE", 0.0)
    with pytest.raises(EncoderError, match=r"other features in onnxruntime .* choose runtime: torch"):
        encoder.features(pixels)
    monkeypatch.setattr(onnx_image, "exported", EXPORT)
    monkeypatch.setattr(encoder, "forward", lambda pixels: pixels if pixels.sum() > 0 else -pixels)
    with pytest.raises(EncoderError, match=r"cannot run in onnxruntime: .* choose runtime: torch"):
        encoder.features(pixels)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EncoderError, match="set XDG_CACHE_HOME to another folder"):
        encoder.features(pixels)
    assert not files()
    monkeypatch.setattr("mmib.base.onnx_files.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'mmib\[onnx\]'"):
        make_image_encoder(runtime="onnx")
