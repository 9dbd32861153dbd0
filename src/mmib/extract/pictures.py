"""Load the images of posts from any source, and cut them into the views that a model encodes."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from mmib.datamodules.images import UnreadableImageError, batches_ahead, check_size, decoders, read_image, upright_rgb
from mmib.schema import UNKNOWN_BOX, WHOLE_IMAGE, Box, InputError

ImageSource = str | Path | bytes | Image.Image
CropSource = ImageSource | Sequence[float]
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
# A PIL image may still be a lazy file, which its first use decodes; two posts may share one.
_LOADING = Lock()


@dataclass(frozen=True)
class View:
    """An image that is encoded into regions: the whole image or a part of it, with its box."""

    picture: Image.Image
    box: Box


def in_threads(work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """Apply `work` to each item, in order; Pillow decodes and scales on all cores in parallel.

    Raises the exception of the first item, in order, for which `work` fails.
    """
    if len(items) < 2 or decoders() < 2:
        return [work(item) for item in items]
    return list(_threads().map(work, items))


def pixels_of(
    pictures: Sequence[Image.Image], transform: Callable[[Image.Image], Tensor], size: int
) -> Iterator[Tensor]:
    """Yield pixels (N, 3, height, width) of at most `size` images; threads scale the next ones meanwhile."""
    return map(torch.stack, batches_ahead(_threads(), transform, pictures, size))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(decoders(), thread_name_prefix="pictures")


def _after_fork() -> None:
    """Replace the pool, whose threads exist only in the parent process, and the lock, which one of them may hold."""
    global _LOADING  # noqa: PLW0603
    _LOADING = Lock()
    _threads.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def open_image(source: Any) -> Image.Image:
    """Open an image as RGB.

    Raises:
        InputError: the source is not an image, or cannot be read.
    """
    try:
        if isinstance(source, Image.Image):
            with _LOADING:
                return upright_rgb(source)
        if isinstance(source, bytes):
            return read_image(io.BytesIO(source))
        if isinstance(source, str | Path):
            return read_image(Path(source))
    # Pillow raises errors of any of these types for a broken image that the caller has opened.
    except (UnreadableImageError, OSError, ValueError) as error:
        name = f" {source}" if isinstance(source, str | Path) else ""
        raise InputError(f"the image{name} cannot be read: {error}") from error
    raise InputError(f"a {type(source).__name__} is no image: give a path, the bytes of a file, or a PIL image")


def views(image: Image.Image, crops: Sequence[CropSource] | None, most: int) -> list[View]:
    """Return the whole image and as many parts of it as the model takes.

    Args:
        image: the whole image.
        crops: boxes x0 y0 x1 y1 in 0..1 of objects in it, or images of the objects. None cuts the image into a grid,
            so that there are regions to attend to.
        most: maximum number of parts, as in training; 0 if the model was trained on whole images only.

    Raises:
        InputError: a crop is neither a box nor an image.
    """
    if crops is not None and not isinstance(crops, list | tuple):
        raise InputError(f"crops are a list, not {crops!r}")
    wanted = grid(most, image.width / image.height) if crops is None else crops[:most]
    return [View(image, WHOLE_IMAGE), *(_crop(image, crop) for crop in wanted)]


def grid(most: int, aspect: float) -> list[Box]:
    """Boxes of the grid with the most cells, up to `most`, whose cells are squarest for this aspect ratio (w / h)."""
    sizes = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    # A single cell would repeat the whole image.
    sizes = [(rows, columns) for rows, columns in sizes if rows * columns > 1]
    if not sizes:
        return []
    cells = max(rows * columns for rows, columns in sizes)

    def oblong(size: tuple[int, int]) -> float:
        wide = aspect * size[0] / size[1]
        return max(wide, 1 / wide)

    rows, columns = min((size for size in sizes if size[0] * size[1] == cells), key=oblong)
    return [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]


def _crop(image: Image.Image, crop: Any) -> View:
    if not isinstance(crop, list | tuple):
        return View(open_image(crop), UNKNOWN_BOX)
    numbers = len(crop) == 4 and all(isinstance(value, int | float) for value in crop)
    if not numbers or not (0 <= crop[0] < crop[2] <= 1 and 0 <= crop[1] < crop[3] <= 1):
        raise InputError(f"the crop {crop!r} is no box: give x0 y0 x1 y1 in 0..1, x0 below x1 and y0 below y1")
    width, height = image.size
    left, top = int(crop[0] * width), int(crop[1] * height)
    right, bottom = max(left + 1, round(crop[2] * width)), max(top + 1, round(crop[3] * height))
    try:
        check_size(right - left, bottom - top)
    except UnreadableImageError as error:
        raise InputError(f"the crop {crop!r} has {error}: give a box that is less narrow") from error
    return View(image.crop((left, top, right, bottom)), (crop[0], crop[1], crop[2], crop[3]))
