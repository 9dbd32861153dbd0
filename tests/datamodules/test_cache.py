"""Features of a frozen encoder are computed once and shared; damaged features are never served."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmib.datamodules import cache as cache_module
from mmib.datamodules.cache import ImageFeatureCache
from mmib.datamodules.images import read_image
from mmib.encoders.image import ImageEncoder

COLOURS = ("red", "lime", "blue", "gold", "navy")


class Work:
    """Counts decoded images and encoder calls."""

    def __init__(self) -> None:
        self.decoded: list[str] = []
        self.encoded = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work()

    def decode(path: Path) -> Image.Image:
        counted.decoded.append(path.name)
        return read_image(path)

    forward = ImageEncoder.forward

    def encode(self: ImageEncoder, pixels: torch.Tensor) -> torch.Tensor:
        counted.encoded += len(pixels)
        return forward(self, pixels)

    monkeypatch.setattr(cache_module, "read_image", decode)
    monkeypatch.setattr(ImageEncoder, "forward", encode)
    return counted


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{colour}.png" for colour in COLOURS]
    for path in paths:
        Image.new("RGB", (20, 10), path.stem).save(path)
    return paths


def direct(encoder: ImageEncoder, file: Path) -> np.ndarray:
    with torch.inference_mode():
        return encoder(encoder.transform(read_image(file))[None])[0].numpy()


def assert_right(cache: ImageFeatureCache, files: list[Path]) -> None:
    for file in files:
        np.testing.assert_allclose(cache.features(file), direct(cache.encoder, file), rtol=2e-3, atol=2e-3)


def shard_files(cache: ImageFeatureCache, suffix: str) -> list[Path]:
    return sorted(cache.folder.glob(f"*{suffix}"))


@pytest.mark.parametrize("regions", ["crops", "grid"])
def test_features_match_those_of_the_encoder(
    tmp_path: Path, files: list[Path], make_image_encoder: Callable[..., ImageEncoder], regions: str
) -> None:
    cache = ImageFeatureCache(tmp_path / "cache", make_image_encoder(regions=regions))
    assert cache.build(files) == {}
    assert_right(cache, files)
    assert cache.features(files[0]).shape == ((1 if regions == "crops" else 25), 96)
    assert not np.allclose(cache.features(files[0]), cache.features(files[1]))


def test_a_warm_cache_decodes_and_encodes_nothing(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder, work: Work
) -> None:
    ImageFeatureCache(tmp_path / "cache", image_encoder).build(files)
    assert (len(work.decoded), work.encoded) == (5, 5)
    again = ImageFeatureCache(tmp_path / "cache", image_encoder)
    again.build(files[::-1])
    assert (len(work.decoded), work.encoded) == (5, 5)
    assert_right(again, files)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_memory_mapped_features_keep_no_file_open(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder
) -> None:
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files)
    features = cache.features(files[0])
    assert features.dtype == np.float16
    assert not features.flags.writeable
    (shard,) = shard_files(cache, ".npy")
    assert str(shard) in Path("/proc/self/maps").read_text()
    assert not [file for file in Path("/proc/self/fd").iterdir() if file.exists() and file.samefile(shard)]


def test_only_new_images_are_computed(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder, work: Work
) -> None:
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files[:3])
    cache.build(files)
    assert sorted(work.decoded) == sorted(file.name for file in files)
    assert_right(cache, files)


def test_identical_images_under_two_names_are_stored_once(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder, work: Work
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[0].read_bytes())
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build([files[0], copy])
    assert work.encoded == 1
    assert_right(cache, [files[0], copy])


def test_new_content_under_an_old_name_is_recomputed(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder, work: Work
) -> None:
    ImageFeatureCache(tmp_path / "cache", image_encoder).build(files)
    Image.new("RGB", (20, 10), "white").save(files[0])
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files)
    assert work.encoded == 6
    assert_right(cache, files)


def test_other_weights_transforms_and_regions_have_separate_features(
    tmp_path: Path, files: list[Path], make_image_encoder: Callable[..., ImageEncoder]
) -> None:
    encoders = {name: make_image_encoder() for name in ("same", "weights", "statistics", "transform")}
    encoders["regions"] = make_image_encoder(regions="grid")
    state = encoders["weights"].encoder.state_dict()
    next(tensor for name, tensor in state.items() if name.endswith("weight")).view(-1)[0] += 1e-6
    statistics = encoders["statistics"].encoder.state_dict()
    next(tensor for name, tensor in statistics.items() if name.endswith("running_mean"))[0] += 1e-6
    encoders["transform"].transform.transforms[0].size = [161, 161]
    folders = {name: ImageFeatureCache(tmp_path, encoder).folder for name, encoder in encoders.items()}
    assert folders["same"] == ImageFeatureCache(tmp_path, make_image_encoder()).folder
    assert len(set(folders.values())) == len(encoders)


def test_the_key_is_independent_of_the_location_of_the_weights(
    tmp_path: Path, encoder_files: Any, make_image_encoder: Callable[..., ImageEncoder]
) -> None:
    moved = tmp_path / "moved.pth"
    moved.write_bytes(Path(encoder_files.image).read_bytes())
    first, second = make_image_encoder(), make_image_encoder(weights=str(moved))
    assert ImageFeatureCache(tmp_path, first).folder == ImageFeatureCache(tmp_path, second).folder


@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "no features", "half a description", "old features"])
def test_a_damaged_shard_is_recomputed(
    tmp_path: Path,
    files: list[Path],
    image_encoder: ImageEncoder,
    work: Work,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files)
    (array,), (description,) = shard_files(cache, ".npy"), shard_files(cache, ".json")
    content = bytearray(array.read_bytes())
    content[-50] ^= 0x40
    if damage == "flipped byte":
        array.write_bytes(content)
    elif damage == "truncated":
        array.write_bytes(content[: len(content) // 2])
    elif damage == "no features":
        array.unlink()
    elif damage == "half a description":
        description.write_bytes(description.read_bytes()[:100])
    else:
        np.save(array, np.zeros((5, 1, 96), dtype=np.float16))
    repaired = ImageFeatureCache(tmp_path / "cache", image_encoder)
    with caplog.at_level(logging.WARNING):
        assert repaired.build(files) == {}
    assert "is damaged and is computed again" in caplog.text
    assert work.encoded == 10
    assert ImageFeatureCache(tmp_path / "cache", image_encoder).build(files) == {}
    assert work.encoded == 10
    assert_right(repaired, files)


def test_a_description_with_another_shape_counts_as_damage(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder
) -> None:
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files)
    for content in ("[1]", "{}", json.dumps({"hashes": 3, "sha256": ""}), "\xff"):
        shard_files(cache, ".json")[0].write_text(content, encoding="latin-1")
        repaired = ImageFeatureCache(tmp_path / "cache", image_encoder)
        repaired.build(files)
        assert_right(repaired, files)


def test_an_interrupted_build_leaves_no_partial_shard(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_text", dies)
        with pytest.raises(KeyboardInterrupt):
            ImageFeatureCache(tmp_path / "cache", image_encoder).build(files)
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files)
    assert work.encoded == 10
    assert_right(cache, files)


def test_a_killed_build_keeps_its_finished_shards(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_ITEMS", 2)
    write_shard = ImageFeatureCache._write_shard
    written: list[int] = []

    def second_one_dies(self: ImageFeatureCache, hashes: list[str], features: np.ndarray) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(len(hashes))
        write_shard(self, hashes, features)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFeatureCache, "_write_shard", second_one_dies)
        with pytest.raises(KeyboardInterrupt):
            ImageFeatureCache(tmp_path / "cache", image_encoder).build(files)
    before = work.encoded
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files)
    assert work.encoded - before == 3
    assert_right(cache, files)


def test_unreadable_files_are_named_with_their_reason_every_time(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    twin = tmp_path / "twin.jpg"
    twin.write_bytes(b"no image")
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    for _ in range(2):
        reasons = cache.build([*files, broken, twin])
        assert reasons.keys() == {broken, twin}
        assert "it is no image" in reasons[broken]
    assert_right(cache, files)


def test_unreadable_files_alone_create_no_shard(tmp_path: Path, image_encoder: ImageEncoder) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    assert list(cache.build([tmp_path / "x.jpg"])) == [tmp_path / "x.jpg"]
    assert shard_files(cache, ".npy") == []


def test_the_next_batch_is_decoded_while_one_is_encoded(
    tmp_path: Path,
    files: list[Path],
    make_image_encoder: Callable[..., ImageEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "BATCH_ITEMS", 2)
    encoder = make_image_encoder()
    started = [threading.Event() for _ in files]
    forward, begun, batches = ImageEncoder.forward, itertools.count(), itertools.count(1)

    def decode(path: Path) -> Image.Image:
        started[next(begun)].set()
        return read_image(path)

    def encode(self: ImageEncoder, pixels: torch.Tensor) -> torch.Tensor:
        coming = 2 * next(batches)
        assert coming >= len(started) or started[coming].wait(timeout=60), "decoding waits for encoding"
        return forward(self, pixels)

    monkeypatch.setattr(cache_module, "read_image", decode)
    monkeypatch.setattr(ImageEncoder, "forward", encode)
    assert ImageFeatureCache(tmp_path / "cache", encoder).build(files) == {}
    assert all(event.is_set() for event in started)


def test_concurrent_builders_share_the_work(
    tmp_path: Path,
    files: list[Path],
    make_image_encoder: Callable[..., ImageEncoder],
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock belongs to an open file, so two threads contend for it as two processes do."""
    monkeypatch.setattr(cache_module, "BATCH_ITEMS", 1)
    monkeypatch.setattr(cache_module, "SHARD_ITEMS", 2)
    caches = [ImageFeatureCache(tmp_path / "cache", make_image_encoder()) for _ in range(2)]
    together = threading.Barrier(2)
    locked = cache_module.locked

    def meet_before_the_lock(path: Path) -> AbstractContextManager[None]:
        together.wait(timeout=30)  # both have seen an empty cache by now
        return locked(path)

    monkeypatch.setattr(cache_module, "locked", meet_before_the_lock)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda cache: cache.build(files), caches)) == [{}, {}]
    assert sorted(work.decoded) == sorted(file.name for file in files)
    assert work.encoded == 5
    for cache in caches:
        assert_right(cache, files)


def test_features_keep_their_indices_when_shards_are_added(
    tmp_path: Path, files: list[Path], image_encoder: ImageEncoder
) -> None:
    cache = ImageFeatureCache(tmp_path / "cache", image_encoder)
    cache.build(files[:2])
    before = [cache.index(file) for file in files[:2]]
    other = ImageFeatureCache(tmp_path / "other", image_encoder)
    other.build(files)
    for file in other.folder.iterdir():  # a shard with the same images again
        (cache.folder / file.name).write_bytes(file.read_bytes())
    cache.build(files)
    assert [cache.index(file) for file in files[:2]] == before
    assert len({cache.index(file) for file in files}) == len(files)
    for file in files:
        np.testing.assert_array_equal(cache.mapped.at(cache.index(file)), cache.features(file))
    with pytest.raises(KeyError):
        cache.index(Path(__file__))


def test_eight_concurrent_processes_build_one_correct_cache(
    tmp_path: Path,
    files: list[Path],
    make_image_encoder: Callable[..., ImageEncoder],
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_ITEMS", 2)
    encoder, context = make_image_encoder(), multiprocessing.get_context("fork")
    together, counts = context.Barrier(8), context.Queue()

    def build() -> None:
        torch.set_num_threads(1)  # recreates torch's thread pool, as required in a forked process
        together.wait(timeout=60)
        assert ImageFeatureCache(tmp_path / "cache", encoder).build(files) == {}
        counts.put(work.encoded)

    builders = [context.Process(target=build) for _ in range(8)]
    for builder in builders:
        builder.start()
    encoded = sum(counts.get(timeout=60) for _ in builders)
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0] * 8
    assert encoded == len(files), "each image was encoded by one of them"
    cache = ImageFeatureCache(tmp_path / "cache", encoder)
    assert cache.build(files) == {}
    assert work.encoded == 0
    assert len(shard_files(cache, ".npy")) == len(shard_files(cache, ".json")) == 3
    assert_right(cache, files)
