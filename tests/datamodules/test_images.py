"""Unusual images: readable ones become RGB as a viewer shows them, unreadable ones are named."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmib.datamodules import images
from mmib.datamodules.images import UnreadableImageError, batches_ahead, read_image, unreadable_images


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 30, 40)).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "x.jpg") - [200, 30, 40]).max() < 12


def test_transparency_of_a_palette_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "x.png", transparency=0)
    assert pixels(tmp_path / "x.png").tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_pixels_are_blended_with_white(tmp_path: Path, mode: str) -> None:
    colour = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)
    Image.new(mode, (2, 2), colour).save(tmp_path / "x.png")
    assert np.abs(pixels(tmp_path / "x.png") - 127).max() <= 1


def test_an_animation_is_read_as_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "x.gif")[0, 0].tolist() == [255, 0, 0]


def test_a_photograph_is_rotated_according_to_its_exif_data(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with a rotated camera: to be displayed rotated clockwise by 90 degrees
    image.save(tmp_path / "x.png", exif=exif)
    turned = pixels(tmp_path / "x.png")
    assert turned.shape == (40, 20, 3)
    assert turned[5, 10].tolist() == [0, 0, 255]
    assert turned[35, 10].tolist() == [255, 0, 0]


def test_16_bit_greys_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert pixels(tmp_path / "x.png")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("greys", "expected"),
    [
        (np.array([0, 0.5, 1], np.float32), [0, 128, 255]),
        (np.array([0, 100, 255], np.float32), [0, 100, 255]),
        (np.array([-3, np.nan, np.inf, 0.4], np.float32), [0, 0, 0, 102]),
        (np.array([0, 1000, 2000], np.float32), [0, 4, 8]),
        (np.array([0, 100_000, 200_000], np.float32), [0, 128, 255]),
        (np.array([0, 1, 255], np.int32), [0, 1, 255]),
        (np.array([0, 32768, 65535], np.int32), [0, 128, 255]),
        (np.array([-5, 0, 2**31 - 1], np.int32), [0, 0, 255]),
        (np.array([0, 255, 65535], np.uint16), [0, 1, 255]),
        (np.array([0, 255], np.uint16), [0, 1]),
        (np.zeros(2, np.float32), [0, 0]),
    ],
)
def test_greys_of_any_range_become_8_bits(tmp_path: Path, greys: np.ndarray, expected: list[int]) -> None:
    Image.fromarray(greys[None]).save(tmp_path / "x.tiff")
    assert pixels(tmp_path / "x.tiff")[0, :, 0].tolist() == expected


def test_a_pipe_is_unreadable_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImageError, match="no regular file"):
        read_image(tmp_path / "x.jpg")


def test_many_files_are_decoded_by_threads_with_a_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / name for name in ("good.png", "text.png", "link.png", "folder.png")}
    Image.new("RGB", (2, 2)).save(files["good.png"])
    files["text.png"].write_text("no image")
    files["link.png"].symlink_to(tmp_path / "nowhere.png")
    files["folder.png"].mkdir()
    threads = set()

    def read(file: Path) -> Image.Image:
        threads.add(threading.current_thread())
        return read_image(file)

    monkeypatch.setattr(images, "read_image", read)
    reasons = {file.name: reason for file, reason in unreadable_images(list(files.values())).items()}
    assert reasons == {
        "text.png": "it is no image, or of an unknown format",
        "link.png": "a broken link",
        "folder.png": "it is no regular file",
    }
    assert threading.main_thread() not in threads
    assert not capsys.readouterr().err
    monkeypatch.setattr(images, "FILES_WITHOUT_PROGRESS", 4)
    unreadable_images(list(files.values()))
    assert "images: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "F"])
def test_one_pixel_is_a_valid_image(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (1, 1), 1).save(tmp_path / "x.tiff")
    assert pixels(tmp_path / "x.tiff").shape == (1, 1, 3)


def test_the_format_is_independent_of_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(Image.new("RGB", (3, 3), "red"), "PNG"))
    assert pixels(tmp_path / "x.jpg")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"<html>404 not found</html>", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + bytes(40)],
    ids=["zero bytes", "text", "error page", "jpeg head", "png head"],
)
def test_files_that_are_not_images_are_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_truncated_file_is_unreadable(tmp_path: Path, file_format: str) -> None:
    whole = encoded(Image.effect_noise((64, 64), 80), file_format)
    (tmp_path / "x").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "x")


def test_missing_files_and_folders_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(UnreadableImageError):
            read_image(path)


def test_an_extremely_large_image_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    Image.new("RGB", (11, 10)).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="11 x 10 pixels"):
        read_image(tmp_path / "x.png")


def test_a_decompression_bomb_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    """10 GB of pixels in a file of a few bytes: only the header is read."""
    content = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "x.png").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match=r"3600000000 pixels|60000 x 60000 pixels"):  # Pillow is stricter
        read_image(tmp_path / "x.png")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000


@pytest.mark.parametrize("size", [(1, 201), (50_000, 1), (1, 65_000)])
def test_a_one_pixel_wide_image_is_unreadable(tmp_path: Path, size: tuple[int, int]) -> None:
    """An encoder that scales the short side to 224 pixels would turn 50,000 x 1 pixels into 10 GB."""
    Image.new("L", size).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match=f"{size[0]} x {size[1]} pixels"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("size", [(1, 200), (600, 3)])
def test_a_narrow_image_is_valid(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").size == size


def test_cyclic_links_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "a.jpg")


def test_a_damaged_file_raises_no_other_error(tmp_path: Path) -> None:
    """On damaged input Pillow's decoders raise errors of many types, such as struct.error and RuntimeError."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, (1, 1)
    picture = Image.effect_noise((24, 16), 80).convert("RGB")
    whole = [encoded(picture, file_format, exif=exif) for file_format in ("JPEG", "PNG", "WEBP")]
    rng = random.Random(0)
    unreadable = 0
    for _ in range(600):
        content = bytearray(rng.choice(whole))
        for _ in range(6):
            content[rng.randrange(min(len(content), 120))] = rng.randrange(256)
        (tmp_path / "x").write_bytes(content)
        try:
            read_image(tmp_path / "x")
        except UnreadableImageError:
            unreadable += 1
    assert unreadable > 100


def test_batches_keep_their_order_and_at_most_one_is_prefetched() -> None:
    made: list[int] = []

    def work(item: int) -> int:
        made.append(item)
        return -item

    with ThreadPoolExecutor(3) as pool:
        batches = batches_ahead(pool, work, range(10), 3)
        assert next(batches) == [0, -1, -2]
        assert len(made) <= 6
        assert list(batches) == [[-3, -4, -5], [-6, -7, -8], [-9]]
        assert list(batches_ahead(pool, work, [], 3)) == []
