"""Finds the file of an image by its name, even if their endings differ."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mmib.datamodules.tables import HashedTable
from mmib.schema import DataError

# In order of preference if a folder has an image in several formats.
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class ImageNames:
    """Finds the files of images by name.

    If the file `1.jpg` does not exist, `1.JPG`, `1.jpeg`, `1.png` and so on are used instead, and `1.png.jpg` for
    `1.png`. Each folder is listed once, on the first lookup in it.

    Args:
        folder: folder that names are relative to; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[str, _Listing] = {}
        self._others = HashedTable()

    @property
    def renamed(self) -> int:
        """Number of distinct names whose file has another name."""
        return len(self._others)

    def find(self, name: str) -> Path | None:
        """Return the file of a name, or None if there is none.

        Args:
            name: a name that is inside the folder (see `mmib.datamodules.files.inside`).

        Raises:
            DataError: the folder cannot be listed.
        """
        below, _, file_name = name.rpartition("/")
        if below not in self._listings:
            self._listings[below] = _Listing(self.folder / below)
        found = self._listings[below].find(file_name)
        if found is None:
            return None
        if found != file_name:
            self._others.setdefault(name, 1)
        return self.folder / below / found


class _Listing:
    """The names of a folder's files, in 24 bytes per name."""

    def __init__(self, folder: Path) -> None:
        self._stems = {ending: HashedTable() for ending in ENDINGS}
        for name in _file_names(folder):
            stem, ending = split_ending(name)
            self._stems.setdefault(ending, HashedTable()).setdefault(stem, 1)

    def find(self, name: str) -> str | None:
        stem, ending = split_ending(name)
        if self._holds(stem, ending):
            return name
        # The same ending in another case comes first.
        endings = sorted(filter(None, self._stems), key=lambda other: other.lower() != ending.lower())
        # A name with an ending may also be the stem of a file, such as an IMGID that ends in `.png`.
        names = ((tried, other) for tried in (stem, name) for other in endings)
        return next((f"{tried}{other}" for tried, other in names if self._holds(tried, other)), None)

    def _holds(self, stem: str, ending: str) -> bool:
        return ending in self._stems and self._stems[ending].get(stem) is not None


def split_ending(name: str) -> tuple[str, str]:
    """Split an image's name into stem and ending; the ending is empty if it is not that of an image format."""
    stem, _, format_name = name.rpartition(".")
    ending = f".{format_name}"
    return (stem, ending) if stem and ending.lower() in ENDINGS else (name, "")


def _file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"the folder of images {folder} cannot be listed: {error.strerror}") from error


def searched_folder(folder: Path, missing: Iterable[str]) -> str:
    """Describe the folder in which the images of these names were not found, for messages."""
    absent = "" if folder.is_dir() else ", which does not exist"
    windows = " (folders in image names are separated by /, not by \\)" if any("\\" in name for name in missing) else ""
    return f"{folder}{absent}{windows}"
