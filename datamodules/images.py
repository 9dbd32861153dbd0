"""Decoding of images from the wild."""

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

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
# Four times a 24-megapixel photograph is a decompression bomb, no image of a post.
MAX_PIXELS = 100_000_000
# Encoders scale the short side to their input size: a line of 1 x 50,000 pixels would become gigabytes.
MAX_RATIO = 200
MOST_DECODERS = 16


def decoders() -> int:
    """Number of threads that decode images: one a core, up to `MOST_DECODERS`."""
    return min(MOST_DECODERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def batches_ahead(
    pool: ThreadPoolExecutor, work: Callable[[ItemT], ResultT], items: Sequence[ItemT], size: int
) -> Iterator[list[ResultT]]:
    """What the threads of a pool make of items, in order, so many at a time; the next are made while these are used."""
    waiting: deque[list[Future[ResultT]]] = deque()
    for start in range(0, len(items), size):
        waiting.append([pool.submit(work, item) for item in items[start : start + size]])
        if len(waiting) > 1:
            yield [result.result() for result in waiting.popleft()]
    for last in waiting:
        yield [result.result() for result in last]


class UnreadableImageError(Exception):
    """An image file that cannot be decoded. Internal: data modules count such files as missing, with their names."""


def read_image(file: Path | BinaryIO) -> Image.Image:
    """The first frame of a file as RGB, turned by its EXIF data, transparency on white.

    Raises:
        UnreadableImageError: missing, truncated, no image at all, or absurdly large or narrow.
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
    except UnidentifiedImageError as error:  # whose text holds the address of an object, for bytes
        raise UnreadableImageError("it is no image, or of an unknown format") from error
    # Pillow's plugins raise any type of error for broken files, struct.error and RuntimeError included.
    except Exception as error:
        raise UnreadableImageError(f"{type(error).__name__}: {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as `read_image` gives it.

    Raises:
        UnreadableImageError: absurdly large or narrow.
    """
    check_size(*image.size)
    image.load()
    return _to_rgb(ImageOps.exif_transpose(image))


def check_size(width: int, height: int) -> None:
    """Refuse what no encoder should scale.

    Raises:
        UnreadableImageError: absurdly large or narrow.
    """
    short, long = sorted((width, height))
    if short * long > MAX_PIXELS or long > MAX_RATIO * short:
        raise UnreadableImageError(f"{width} x {height} pixels, which is no usable image")


def _scaled(image: Image.Image) -> Image.Image:
    """Greys of 16 or 32 bits, or real ones, in 8 bits: Pillow would clip them at 255, and make 0..1 black.

    16 bits say which value is white. Of the others it is the first of 1 (of real greys), 255 and 65535 that none
    exceeds, or else the greatest one.
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
