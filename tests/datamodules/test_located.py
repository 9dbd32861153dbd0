"""Images of rows are packed without loss and take little memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np

from mmib.datamodules.located import LocatedImages, LocatedPictures, NamedImages
from mmib.schema import NO_IMAGE, UNKNOWN_BOX, WHOLE_IMAGE, Picture

ODD = os.fsdecode(b"\xff\xe9.jpg")
LOCATED = [
    (7, (Picture(Path("data/img/a.jpg"), WHOLE_IMAGE, 5 << 32 | 1), Picture(Path("data/crops/b.jpg"), UNKNOWN_BOX, 0))),
    (NO_IMAGE, ()),
    (0, (Picture(Path("data/img/sub") / ODD, (0.1, 1 / 3, 0.7, 1.0)), Picture(Path("c.jpg"), WHOLE_IMAGE, 4, True))),
]


def test_packed_images_round_trip() -> None:
    pictures = LocatedPictures(LOCATED)
    assert [pictures[number] for number in range(3)] == LOCATED
    indices = [[picture.cache_index for picture in pictures[number][1]] for number in range(3)]
    assert indices == [[5 << 32 | 1, 0], [], [-1, 4]]
    assert pictures.counts().tolist() == [2, 0, 2]
    assert pictures.text_counts().tolist() == [0, 0, 1]


def test_rows_share_equal_values() -> None:
    rows = LocatedImages(LocatedPictures(LOCATED), np.array([2, 0, 0, 1], dtype=np.int32))
    assert list(rows) == [LOCATED[number] for number in (2, 0, 0, 1)]
    assert list(rows[1:3]) == [LOCATED[0]] * 2
    assert rows.counts().tolist() == [2, 2, 2, 0]
    assert rows.text_counts().tolist() == [1, 0, 0, 0]


def test_an_image_takes_about_a_hundred_bytes() -> None:
    count, folder = 2000, Path("/somewhere/data/mnre/img_org/train")
    tracemalloc.start()
    pictures = LocatedPictures((n, [Picture(folder / f"twitter_{n:020}.jpg", WHOLE_IMAGE, n)]) for n in range(count))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pictures) == count
    assert size / count < 150


def test_an_image_that_no_row_has_is_missing() -> None:
    named = NamedImages()
    for name, found in (("b", False), ("a", False), ("c", True), ("b", True), ("a", False), ("c", False)):
        named.add(name, found)
    assert (len(named), named.missing()) == (3, ["a"])
