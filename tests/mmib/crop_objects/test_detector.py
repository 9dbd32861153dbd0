"""Randomly initialised detectors of each family: their interface, not their detections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmib.crop_objects.detector import ZeroShotDetector
from mmib.schema import ConfigError, EncoderError

Noise = Callable[..., Image.Image]

FAMILIES = ("grounding-dino", "owlv2", "owlvit")


@pytest.mark.parametrize("family", FAMILIES)
def test_detections_do_not_depend_on_the_rest_of_the_batch(
    detectors: dict[str, str], tmp_path: Path, noise: Noise, family: str
) -> None:
    detector = ZeroShotDetector(detectors[family], threshold=0.0, device="cpu")
    images = [noise(tmp_path / "a.png", size, seed) for seed, size in enumerate([(90, 60), (40, 80), (90, 60)])]
    phrases = [("cat", "big dog", "man"), ("tree",), ("a very long house " * 9,)]
    together = detector.detect(images, phrases)
    assert all(together)
    for image, wanted, found in zip(images, phrases, together, strict=True):
        (alone,) = detector.detect([image], [wanted])
        assert [one.score for one in alone] == pytest.approx([one.score for one in found], abs=1e-4)
        for one, other in zip(alone, found, strict=True):
            assert one.box == pytest.approx(other.box, abs=1e-2)
            assert one.phrase == other.phrase
            assert family == "grounding-dino" or one.phrase in wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_the_threshold_excludes_uncertain_detections(
    detectors: dict[str, str], tmp_path: Path, noise: Noise, family: str
) -> None:
    image = noise(tmp_path / "a.png", (64, 64))
    every, sure = (
        ZeroShotDetector(detectors[family], threshold=threshold, device="cpu").detect([image], [["cat"]])[0]
        for threshold in (0.0, 0.3)
    )
    assert every
    assert sure == [one for one in every if one.score > 0.3]


def test_a_model_that_is_no_detector_is_refused(bert_folder: str) -> None:
    with pytest.raises(
        EncoderError, match=r"is a bert, not a supported zero-shot detector: choose one of grounding-dino, "
    ):
        ZeroShotDetector(bert_folder)


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_folder_is_refused_and_named(detectors: dict[str, str], tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detectors["owlv2"], folder)
    (folder / damage).write_bytes((folder / damage).read_bytes()[:50])
    with pytest.raises(EncoderError, match=f"{folder}.*could not be loaded from that folder.*belong together"):
        ZeroShotDetector(str(folder))


def test_weights_with_other_shapes_are_refused(detectors: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detectors["owlv2"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["projection_dim"] = 24
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="could not be loaded from that folder"):
        ZeroShotDetector(str(folder))


def test_a_hub_name_without_a_network_describes_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"nobody/nothing.*Give a local folder, or fill the cache"):
        ZeroShotDetector("nobody/nothing")


def test_an_unavailable_device_is_refused(detectors: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--device nonsense is unknown"):
        ZeroShotDetector(detectors["owlv2"], device="nonsense")
