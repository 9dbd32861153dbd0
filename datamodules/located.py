"""What is known of a split's images, in a few dozen bytes each: there may be millions of them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from mmib.datamodules.tables import HashedTable
from mmib.schema import Picture

Located = tuple[int, tuple[Picture, ...]]


class NamedImages:
    """How many distinct images rows name, and which of them were never found."""

    def __init__(self) -> None:
        self._numbers = HashedTable()
        self._missing: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, name: str, found: bool) -> None:
        """A row names an image, of which it has pictures or not."""
        count = len(self._numbers)
        number = self._numbers.setdefault(name, count)
        if found:
            self._missing.pop(number, None)
        elif number == count:
            self._missing[number] = name

    def missing(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._missing.values())


class LocatedPictures:
    """Image ids and readable pictures, in some 60 bytes a picture beside its name."""

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
        for image_id, pictures in located:
            self.append(image_id, pictures)

    def __len__(self) -> int:
        return len(self._image_ids)

    def append(self, image_id: int, pictures: Iterable[Picture]) -> None:
        """One more."""
        for picture in pictures:
            self._folder_of.append(self._folder_number(picture.file.parent))
            self._names += os.fsencode(picture.file.name)
            self._name_ends.append(len(self._names))
            self._boxes.extend(picture.box)
            self._cache_indices.append(picture.cache_index)
        self._image_ids.append(image_id)
        self._ends.append(len(self._cache_indices))

    def __getitem__(self, number: int) -> Located:
        start = self._ends[number - 1] if number else 0
        return self._image_ids[number], tuple(map(self._picture, range(start, self._ends[number])))

    def counts(self) -> np.ndarray:
        """(N,) pictures of each."""
        return np.diff(np.array(self._ends), prepend=0).astype(np.int32)

    def _folder_number(self, folder: Path) -> int:
        number = self._folder_numbers.setdefault(folder, len(self._folders))
        if number == len(self._folders):
            self._folders.append(folder)
        return number

    def _picture(self, number: int) -> Picture:
        name = os.fsdecode(bytes(self._names[self._name_ends[number] : self._name_ends[number + 1]]))
        x0, y0, x1, y1 = self._boxes[4 * number : 4 * number + 4]
        return Picture(self._folders[self._folder_of[number]] / name, (x0, y0, x1, y1), self._cache_indices[number])


class LocatedImages(Sequence[Located]):
    """For each row its image id and readable pictures; rows that have the same share them in memory.

    Args:
        distinct: id and pictures, each once.
        numbers: (N,) which of them each row has.
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
        """What one row has; of a slice, those of its rows."""
        if isinstance(row, slice):
            return LocatedImages(self._distinct, self._numbers[row])
        return self._distinct[int(self._numbers[row])]

    def counts(self) -> np.ndarray:
        """(N,) pictures of each row."""
        return self._distinct.counts()[self._numbers]
