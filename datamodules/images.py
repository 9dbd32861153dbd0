"""Decoding of images from the wild."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

# Four times a 24-megapixel photograph is a decompression bomb, no image of a post.
MAX_PIXELS = 100_000_000
# Encoders scale the short side to their input size: a line of 1 x 50,000 pixels would become gigabytes.
MAX_RATIO = 200
MOST_DECODERS = 16


def decoders() -> int:
    """Number of threads that decode images: one a core, up to `MOST_DECODERS`."""
    return min(MOST_DECODERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16-bit greys at 255 where it should scale them.
        image = image.point(lambda value: value / 256).convert("L")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
