"""Compact storage of the images of a split, in about 60 bytes each: there may be millions of them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from mmib.datamodules.tables import HashedTable
from mmib.schema import NOT_LOOKED_FOR, Picture

Located = tuple[int, tuple[Picture, ...]]


class NamedImages:
    """Counts the distinct images that rows name, and records those that were never found."""

    def __init__(self) -> None:
        self._numbers = HashedTable()
        self._missing: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, name: str, found: bool) -> None:
        """Add an image that a row names, and whether it was found."""
        count = len(self._numbers)
        number = self._numbers.setdefault(name, count)
        if found:
            self._missing.pop(number, None)
        elif number == count:
            self._missing[number] = name

    def missing(self) -> list[str]:
        """The names that were never found, sorted."""
        return sorted(self._missing.values())


class LocatedPictures:
    """Image ids, and readable images, crops and side-text regions, in about 60 bytes each plus the file's name."""

    def __init__(self, located: Iterable[Located] = ()) -> None:
        self._image_ids = array("i")
        self._ends = array("q")
        self._folders: list[Path] = []
        self._folder_numbers: dict[Path, int] = {}
        self._folder_of = array("i")
        self._names = bytearray()
        self._name_ends = array("q", [0])
        self._boxes = array("d")
        self._cache_indices = array("q")
        self._is_text = array("b")
        for image_id, pictures in located:
            self.append(image_id, pictures)

    def __len__(self) -> int:
        return len(self._image_ids)

    def append(self, image_id: int, pictures: Iterable[Picture]) -> None:
        """Add an image id with its pictures: the whole image, crops and side-text regions."""
        for picture in pictures:
            self._folder_of.append(self._folder_number(picture.file.parent))
            self._names += os.fsencode(picture.file.name)
            self._name_ends.append(len(self._names))
            self._boxes.extend(picture.box)
            self._cache_indices.append(picture.cache_index)
            self._is_text.append(picture.is_text)
        self._image_ids.append(image_id)
        self._ends.append(len(self._cache_indices))

    def __getitem__(self, number: int) -> Located:
        start = self._ends[number - 1] if number else 0
        return self._image_ids[number], tuple(map(self._picture, range(start, self._ends[number])))

    def counts(self) -> np.ndarray:
        """(N,) number of pictures of each entry."""
        return np.diff(np.array(self._ends), prepend=0).astype(np.int32)

    def text_counts(self) -> np.ndarray:
        """(N,) number of pictures of each entry that are side-text regions."""
        before = np.concatenate([[0], np.cumsum(np.array(self._is_text, dtype=np.int64))])
        return np.diff(before[np.array(self._ends, dtype=np.int64)], prepend=0).astype(np.int32)

    def looked_for(self) -> np.ndarray:
        """(N,) False for entries whose image has not been looked for."""
        looked_for: np.ndarray = np.array(self._image_ids, dtype=np.int32) != NOT_LOOKED_FOR
        return looked_for

    def _folder_number(self, folder: Path) -> int:
        number = self._folder_numbers.setdefault(folder, len(self._folders))
        if number == len(self._folders):
            self._folders.append(folder)
        return number

    def _picture(self, number: int) -> Picture:
        name = os.fsdecode(bytes(self._names[self._name_ends[number] : self._name_ends[number + 1]]))
        x0, y0, x1, y1 = self._boxes[4 * number : 4 * number + 4]
        file = self._folders[self._folder_of[number]] / name
        return Picture(file, (x0, y0, x1, y1), self._cache_indices[number], bool(self._is_text[number]))


class LocatedImages(Sequence[Located]):
    """The image id and pictures of each row; rows with the same image share them in memory.

    Args:
        distinct: image ids with their pictures, each once.
        numbers: (N,) index into `distinct` of each row.
    """

    def __init__(self, distinct: LocatedPictures, numbers: np.ndarray) -> None:
        self._distinct = distinct
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, row: int) -> Located: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Located]: ...
    def __getitem__(self, row: int | slice) -> Located | Sequence[Located]:
        """The images of a row, or of the rows of a slice."""
        if isinstance(row, slice):
            return LocatedImages(self._distinct, self._numbers[row])
        return self._distinct[int(self._numbers[row])]

    def counts(self) -> np.ndarray:
        """(N,) number of pictures of each row."""
        counts: np.ndarray = self._distinct.counts()[self._numbers]
        return counts

    def text_counts(self) -> np.ndarray:
        """(N,) number of pictures of each row that are side-text regions."""
        counts: np.ndarray = self._distinct.text_counts()[self._numbers]
        return counts

    def looked_for(self) -> np.ndarray:
        """(N,) False for rows whose image has not been looked for."""
        looked_for: np.ndarray = self._distinct.looked_for()[self._numbers]
        return looked_for
