"""Decoding of arbitrary image files."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from mmib.base.cores import allowed_cores

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
# An image of four times the pixels of a 24-megapixel photograph is a decompression bomb, not the image of a post.
MAX_PIXELS = 100_000_000
# Encoders scale the short side to their input size: a line of 1 x 50,000 pixels would become gigabytes.
MAX_RATIO = 200
MOST_DECODERS = 16
FILES_WITHOUT_PROGRESS = 200


def decoders() -> int:
    """Number of threads that decode images: one per core, up to `MOST_DECODERS`."""
    return min(MOST_DECODERS, allowed_cores())


def batches_ahead(
    pool: ThreadPoolExecutor, work: Callable[[ItemT], ResultT], items: Sequence[ItemT], size: int
) -> Iterator[list[ResultT]]:
    """Apply `work` to items in a pool and yield ordered batches of `size` results, computing one batch ahead."""
    waiting: deque[list[Future[ResultT]]] = deque()
    for start in range(0, len(items), size):
        waiting.append([pool.submit(work, item) for item in items[start : start + size]])
        if len(waiting) > 1:
            yield [result.result() for result in waiting.popleft()]
    for last in waiting:
        yield [result.result() for result in last]


class UnreadableImageError(Exception):
    """An image file that cannot be decoded. Internal: data modules count and report such files as missing."""


def read_image(file: Path | BinaryIO) -> Image.Image:
    """Read the first frame of a file as RGB, rotated as its EXIF data says, with transparency on white.

    Raises:
        UnreadableImageError: the file is missing, truncated, no image, or absurdly large or narrow.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of palettes with transparency and of mid-sized bombs; both are handled here.
            warnings.simplefilter("ignore")
            if isinstance(file, Path) and file.exists() and not file.is_file():
                raise UnreadableImageError("it is no regular file")  # a pipe would never end
            with Image.open(file) as image:
                return upright_rgb(image)
    except UnreadableImageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError("there is no such file") from error
    except UnidentifiedImageError as error:  # its message has the address of an object, for bytes
        raise UnreadableImageError("it is no image, or of an unknown format") from error
    # Pillow's plugins raise any type of error for broken files, struct.error and RuntimeError included.
    except Exception as error:
        raise UnreadableImageError(f"{type(error).__name__}: {error}") from error


def unreadable_images(files: Sequence[Path]) -> dict[Path, str]:
    """Decode files in threads; return {file: reason} of those that cannot be decoded."""
    with ThreadPoolExecutor(decoders()) as pool:
        reasons = pool.map(why_unreadable, files)
        bar = tqdm(reasons, "images", len(files), unit="image", disable=len(files) < FILES_WITHOUT_PROGRESS)
        return {file: reason for file, reason in zip(files, bar, strict=True) if reason is not None}


def why_unreadable(file: Path) -> str | None:
    """The reason why a file that a folder lists cannot be decoded as an image, or None."""
    if not os.path.exists(file):  # noqa: PTH110 - gives False for loops and for what may not be looked at
        return "a broken link"
    try:
        read_image(file)
    except UnreadableImageError as error:
        return str(error)
    return None


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image as `read_image` does.

    Raises:
        UnreadableImageError: the image is absurdly large or narrow.
    """
    check_size(*image.size)
    image.load()
    return _to_rgb(ImageOps.exif_transpose(image))


def check_size(width: int, height: int) -> None:
    """Check that an encoder can scale an image.

    Raises:
        UnreadableImageError: the image is absurdly large or narrow.
    """
    short, long = sorted((width, height))
    if short * long > MAX_PIXELS or long > MAX_RATIO * short:
        raise UnreadableImageError(f"{width} x {height} pixels, which is no usable image")


def _scaled(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits, or floats, to 8 bits: Pillow would clip them at 255, and make 0..1 black.

    With 16 bits, white is 65535. Otherwise it is the first of 1 (floats only), 255 and 65535 that no value exceeds, or
    else the greatest value.
    """
    greys = np.nan_to_num(np.array(image, dtype=np.float32), copy=False, posinf=0, neginf=0)
    greys.clip(min=0, out=greys)
    whites = [65535.0] if image.mode.startswith("I;16") else [*([1.0] if image.mode == "F" else []), 255.0, 65535.0]
    greatest = float(greys.max(initial=0))
    white = next((value for value in whites if greatest <= value), greatest)
    greys *= 255 / white
    return Image.fromarray(greys.round(out=greys).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
